"""Greedy answers and multiple-choice likelihoods as a user of Hugging Face transformers computes them, measured.

Batches of left-padded prompts of similar length; `model.generate` with its key-value cache for answers, one forward pass
for likelihoods, of which the head computes the last position alone. Prints one line of JSON with times.

Usage: python transformers_eval.py --what generate --model DIR --questions FILE.jsonl --n 32 --batch 16 --threads 2 --out FILE

Each line of the questions holds `ids`, the prompt's token ids, and `tokens`: those that end an answer, or those to weigh.
"""

import argparse
import json
import platform
from importlib.metadata import version
from time import perf_counter, process_time

import torch
from transformers import AutoModelForCausalLM


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=["generate", "quiz"], required=True)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--questions", required=True, help="tokenised questions, one JSON object a line")
    parser.add_argument("--n", type=int, required=True, help="how many of the questions, from the first")
    parser.add_argument("--batch", type=int, required=True, help="prompts in a batch")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", required=True, help="write answers or likelihoods here, one JSON value a line")
    return parser.parse_args()


def read_questions(path, n):
    with open(path) as lines:
        questions = [json.loads(line) for line, _ in zip(lines, range(n))]
    if len(questions) < n:
        raise SystemExit(f"{path} holds {len(questions)} questions, {n} are asked for")
    return questions


def left_padded(questions):
    """Token ids and attention mask, both [batch, longest]."""
    longest = max(len(q["ids"]) for q in questions)
    rows = [[0] * (longest - len(q["ids"])) + q["ids"] for q in questions]
    mask = [[0] * (longest - len(q["ids"])) + [1] * len(q["ids"]) for q in questions]
    return torch.tensor(rows), torch.tensor(mask)


def generate(model, questions, max_new_tokens):
    """The generated tokens of each question, without the one that ends them, and whether there was one."""
    ids, mask = left_padded(questions)
    ends = questions[0]["tokens"]
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=ends[0],
    )
    answers = []
    for row in output[:, ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), None)
        row = row if end is None else row[:end]
        answers.append({"ids": row, "tokens": len(row), "ended": end is not None})
    return answers


def weigh(model, questions):
    """Log-likelihoods of each question's tokens."""
    ids, mask = left_padded(questions)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False).logits
    likelihoods = logits[:, -1].log_softmax(-1)
    return [row[q["tokens"]].tolist() for row, q in zip(likelihoods, questions)]


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    questions = read_questions(args.questions, args.n)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.eval()

    def answered(batch):
        return generate(model, batch, args.max_new_tokens) if args.what == "generate" else weigh(model, batch)

    with torch.inference_mode():
        # The first pass pays for the libraries' own set-up.
        answered(questions[:1])
        started, cpu = perf_counter(), process_time()
        order = sorted(range(len(questions)), key=lambda i: -len(questions[i]["ids"]))
        answers = [None] * len(questions)
        for at in range(0, len(order), args.batch):
            batch = order[at : at + args.batch]
            for i, answer in zip(batch, answered([questions[i] for i in batch])):
                answers[i] = answer
        seconds, cpu = perf_counter() - started, process_time() - cpu

    with open(args.out, "w") as out:
        for answer in answers:
            out.write(json.dumps(answer) + "\n")
    report = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "prompt_tokens": sum(len(q["ids"]) for q in questions),
        "attention": model.config._attn_implementation,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ["torch", "transformers"]},
    }
    if args.what == "generate":
        report["tokens"] = sum(answer["tokens"] for answer in answers)
        report["answers"] = len(answers)
        report["ended"] = sum(answer["ended"] for answer in answers)
    else:
        report["items"] = len(answers)
    print(json.dumps(report))


main()
