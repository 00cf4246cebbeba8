"""What was exported, used with other people's programs alone: nothing here imports this project.

    python examples/taken_away.py ask MODEL "How do herons fish?"      # needs transformers
    python examples/taken_away.py serve MODEL "How do herons fish?"    # needs vllm
    python examples/taken_away.py train DATA --base MODEL --to DIR     # needs trl

MODEL is a folder by ``python -m cai.export RUN --system rl_cai --to MODEL``, DATA one by
``python -m cai.export RUN --data --to DATA``.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 900
"""Seconds that a server may take to start."""


def ask(folder: Path, question: str) -> str:
    """Answer with transformers, greedily."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    return str(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def serve(folder: Path, question: str) -> str:
    """Start a vLLM server, ask it the same, and end it."""
    # What ``vllm serve`` runs; by this name the package for processors has it, too.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [
        f"--model={folder.resolve()}",
        "--served-model-name=it",
        "--dtype=float32",
        "--max-model-len=1024",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command += [f"--port={port}", "--host=127.0.0.1"]
    # On a processor a little room for what was read so far is enough. A group of its own, because
    # the server leaves its workers behind where it is ended before they are ready.
    room = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    server = subprocess.Popen(command, stdout=sys.stderr, env=room, start_new_session=True)
    try:
        _wait(server, url)
        asked = {
            "model": "it",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 60,
        }
        answer = _call(f"{url}/v1/chat/completions", asked)
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    finally:
        _end(server)


def _wait(server: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            _call(f"{url}/health")
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the server did not start: its own words are above")


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _call(url: str, body: "dict[str, object] | None" = None) -> bytes:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        read: bytes = answer.read()
    return read


def train(data: Path, base: Path, to: Path, steps: int) -> "dict[str, float]":
    """Train TRL's RewardTrainer on the AI labels; return its last figures on rows held out."""
    from datasets import load_dataset
    from trl import RewardConfig, RewardTrainer

    rows = load_dataset(str(data), "labels", split="train")
    kept = rows.select_columns(["prompt", "chosen", "rejected"]).train_test_split(0.2, seed=0)
    settings = RewardConfig(
        output_dir=str(to),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-5,
        max_length=512,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = RewardTrainer(
        model=str(base), args=settings, train_dataset=kept["train"], eval_dataset=kept["test"]
    )
    trainer.train()
    trainer.save_model(str(to))
    return dict(trainer.evaluate())


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("ask", "serve"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path)
        command.add_argument("question")
    command = commands.add_parser("train")
    command.add_argument("data", type=Path)
    command.add_argument("--base", type=Path, required=True)
    command.add_argument("--to", type=Path, required=True)
    command.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if options.command == "train":
        found = train(options.data, options.base, options.to, options.steps)
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        answer = {"ask": ask, "serve": serve}[options.command](options.model, options.question)
        sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main()
