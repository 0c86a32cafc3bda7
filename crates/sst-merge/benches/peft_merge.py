"""Merging two LoRA adapters as a user of PEFT or PyTorch does it, measured.

Base weights are one zero each, expanded to their shape: PEFT's merges read nothing but A and B. Only the merge is timed,
not what loads or saves. Prints one line of JSON.

Usage: python peft_merge.py svd --folder DIR --out DIR --threads 2 [--rank 16] [--density 0.5]

The folder holds the PEFT folders `utility` and `safety`; for `sst` also the covariances `utility-statistics` and
`safety-statistics` (fisher.safetensors with `<module>.A`, [d_in, d_in]).
"""

import argparse
import json
import platform
import resource
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

GAMMA, RIDGE = 0.3, 1e-2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["cat", "svd", "ties", "sst"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="PEFT folder of the merge")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rank", type=int, default=16, help="of the result of svd")
    parser.add_argument("--density", type=float, default=0.5, help="of ties")
    return parser.parse_args()


def read(folder):
    """The configuration, and the tensors by their name in the file."""
    config = LoraConfig.from_pretrained(folder)
    # PEFT's classes for a task ask for a language model's methods.
    config.task_type = None
    return config, load_file(folder / "adapter_model.safetensors")


def tree(tensors):
    """Modules of bare linears, with the paths and shapes that the adapter's tensors tell."""
    root = torch.nn.Module()
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        d_out, d_in = tensors[name.replace("lora_A", "lora_B")].shape[0], a.shape[1]
        *parents, leaf = path.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        linear = torch.nn.Linear(1, 1, bias=False)
        linear.in_features, linear.out_features = d_in, d_out
        linear.weight = torch.nn.Parameter(torch.zeros(1, 1).expand(d_out, d_in), requires_grad=False)
        module.add_module(leaf, linear)
    return root


def by_peft(args):
    adapters = {name: read(args.folder / name) for name in ["utility", "safety"]}
    (config, tensors), (other, _) = adapters.values()
    model = PeftModel(tree(tensors), config, adapter_name="utility")
    model.add_adapter("safety", other)
    for name, (_, tensors) in adapters.items():
        result = set_peft_model_state_dict(model, tensors, adapter_name=name)
        if result.unexpected_keys:
            raise SystemExit(f"{name}: PEFT does not know {result.unexpected_keys[0]}")
    options = {
        "cat": {},
        "svd": {"svd_rank": args.rank, "svd_full_matrices": False},
        "ties": {"density": args.density},
    }[args.method]
    started = perf_counter()
    model.add_weighted_adapter(list(adapters), [1.0, 1.0], "merged", combination_type=args.method, **options)
    seconds = perf_counter() - started
    state = get_peft_model_state_dict(model, adapter_name="merged")
    return seconds, model.peft_config["merged"], state


def by_hand(args):
    """SST's input side: M = B_u A_u (I - Q) + B_s A_s Q, Q = gamma C_s (C_u + eps I + gamma C_s)^-1."""
    (config, u), (_, s) = (read(args.folder / name) for name in ["utility", "safety"])
    statistics = [load_file(args.folder / f"{name}-statistics/fisher.safetensors") for name in ["utility", "safety"]]
    scale = config.lora_alpha / config.r
    merged = {}
    started = perf_counter()
    for name in [name for name in u if name.endswith(".lora_A.weight")]:
        module, b = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"), name.replace("lora_A", "lora_B")
        c_u, c_s = (covariances[f"{module}.A"].double() for covariances in statistics)
        rows = torch.cat([u[name], s[name]]).double()
        right = GAMMA * (c_s @ rows.T)  # [d_in, 2 r]
        sum_ = c_u + GAMMA * c_s
        sum_.diagonal().add_(RIDGE * c_u.diagonal().mean())
        filtered = torch.cholesky_solve(right, torch.linalg.cholesky(sum_)).T
        r = u[name].shape[0]
        merged[name] = torch.cat([rows[:r] - filtered[:r], filtered[r:]]).float()
        merged[b] = scale * torch.cat([u[b], s[b]], dim=1)
    seconds = perf_counter() - started
    config.r = config.lora_alpha = 2 * config.r
    return seconds, config, merged


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        seconds, config, tensors = by_hand(args) if args.method == "sst" else by_peft(args)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.out / "adapter_model.safetensors")
    config.save_pretrained(args.out)
    report = {
        "seconds": seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ["torch", "peft"]},
    }
    print(json.dumps(report))


main()
