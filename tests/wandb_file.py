"""Reads the file that an offline W&B run leaves, as `wandb sync` would."""

import json
import struct
import time

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
"""Records are framed like LevelDB's log: 7 bytes of header each, in blocks of this size."""
MAGIC = b":W&B"


def records(path):
    data = path.read_bytes()
    assert data[:4] == MAGIC, path
    position, body = 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        body += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(body)
            body = b""
            yield record


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    def __init__(self, path):
        self.folder = path.parent
        self.history, self.artifacts, self.metrics, self.run, self.exit = [], [], [], None, None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "metric":
                self.metrics.append(record.metric)
            elif kind == "exit":
                self.exit = record.exit

    @property
    def config(self):
        return values(self.run.config.update)

    def table(self, name):
        [row] = [row for row in self.history if f"{name}/_type" in row]
        assert row[f"{name}/_type"] == "table-file"
        return json.loads((self.folder / "files" / row[f"{name}/path"]).read_text())


def offline_runs(folder):
    """Read every run below a folder; W&B's process may still be writing the end of the last."""
    deadline = time.monotonic() + 10
    while True:
        runs = [OfflineRun(path) for path in sorted(folder.rglob("run-*.wandb"))]
        if time.monotonic() > deadline or all(run.exit is not None for run in runs):
            return runs
        time.sleep(0.05)
