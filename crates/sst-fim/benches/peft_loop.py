"""The diagonal Fisher information of a LoRA adapter as a user of PyTorch and PEFT writes it, measured.

One sample at a time: forward, backward, and every gradient kept; at the end, per tensor, the mean square over the samples
(`diag`) or the variance (`diag-variance`). Prints one line of JSON with times and memory.

Usage: python peft_loop.py --model DIR --adapter DIR --samples FILE.jsonl --n 64 --threads 2 [--out values.safetensors]

Each line of the samples holds `ids`, the token ids of prompt and response, and `scored_from`, where the response starts.
"""

import argparse
import json
import platform
from importlib.metadata import version
from time import perf_counter

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--adapter", required=True, help="folder of the PEFT adapter")
    parser.add_argument("--samples", required=True, help="tokenised samples, one JSON object a line")
    parser.add_argument("--n", type=int, required=True, help="how many of the samples, from the first")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--estimator", choices=["diag", "diag-variance"], default="diag")
    parser.add_argument("--out", help="write the estimate here")
    return parser.parse_args()


def read_samples(path, n):
    """Token ids [1, length], and labels that leave the prompt out of the loss."""
    samples = []
    with open(path) as lines:
        for line, _ in zip(lines, range(n)):
            sample = json.loads(line)
            ids = torch.tensor([sample["ids"]])
            labels = ids.clone()
            labels[:, : sample["scored_from"]] = -100
            samples.append((ids, labels))
    if len(samples) < n:
        raise SystemExit(f"{path} holds {len(samples)} samples, {n} are asked for")
    return samples


def memory(field):
    """A figure of this process's memory, in bytes, as Linux counts it."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def forget_peak():
    """Loading a model peaks higher than the model stays, which would hide the peak of the run.

    Where the system does not permit it the peak of loading stays in: the figure is then too large for this loop.
    """
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except OSError:
        pass


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    samples = read_samples(args.samples, args.n)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, args.adapter, is_trainable=True)
    model.eval()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    strangers = [name for name in parameters if "lora_" not in name]
    if strangers:
        raise SystemExit(f"{strangers[0]} is trained, but is no tensor of a LoRA adapter")

    forget_peak()
    model_bytes = memory("VmRSS")

    # The first pass pays for the libraries' own set-up.
    ids, labels = samples[0]
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()

    gradients = {name: [] for name in parameters}
    forward_s = backward_s = statistics_s = 0.0
    started = perf_counter()
    for ids, labels in samples:
        model.zero_grad(set_to_none=True)
        t0 = perf_counter()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        t1 = perf_counter()
        loss.backward()
        t2 = perf_counter()
        for name, parameter in parameters.items():
            gradients[name].append(parameter.grad.detach().clone())
        t3 = perf_counter()
        forward_s, backward_s, statistics_s = forward_s + t1 - t0, backward_s + t2 - t1, statistics_s + t3 - t2
    t0 = perf_counter()
    values = {}
    for name, list_of_gradients in gradients.items():
        stacked = torch.stack(list_of_gradients)
        if args.estimator == "diag":
            values[name] = stacked.square().mean(0)
        else:
            values[name] = stacked.var(0, correction=0)
    finished = perf_counter()
    statistics_s += finished - t0
    peak_bytes = memory("VmHWM")

    if args.out:
        stem = lambda name: name.removeprefix("base_model.model.").removesuffix(".default.weight")
        save_file({stem(name): value.contiguous() for name, value in values.items()}, args.out)
    report = {
        "seconds": finished - started,
        "samples": len(samples),
        "tokens": sum(ids.numel() for ids, _ in samples),
        "peak_bytes": peak_bytes,
        "model_bytes": model_bytes,
        "forward_s": forward_s,
        "backward_s": backward_s,
        "statistics_s": statistics_s,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ["torch", "transformers", "peft"]},
    }
    print(json.dumps(report))


main()
