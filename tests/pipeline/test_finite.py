"""Nothing that is not a number is sealed, in rows, documents or weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from cai.errors import UserError
from cai.pipeline.finite import check_finite


def test_words_that_look_like_numbers_are_words(tmp_path):
    rows = [{"reply": "NaN, or -Infinity: 1e999"}, {"x": 1.5}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "README.md").write_text("NaN")
    (tmp_path / "deep").mkdir()
    save_file({"w": torch.ones(3), "n": torch.tensor([1, 2])}, tmp_path / "deep" / "a.safetensors")
    check_finite(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_looked_through(tmp_path, bad, dtype):
    (tmp_path / "deep").mkdir()
    tensors = {"fine": torch.ones(2), "w": torch.tensor([1.0, bad], dtype=dtype)}
    save_file(tensors, tmp_path / "deep" / "a.safetensors")
    with pytest.raises(UserError, match=r"^deep/a\.safetensors .* \(w\): nothing was made"):
        check_finite(tmp_path)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999", "1E+400"])
def test_rows_and_documents_are_looked_through(tmp_path, bad):
    (tmp_path / "rows.jsonl").write_text(f'{{"x": 1}}\n{{"text": "NaN", "x": [{bad}]}}\n')
    with pytest.raises(UserError, match=r"^rows\.jsonl .* \(line 2\)"):
        check_finite(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "metrics.json").write_text(f'{{"x": {bad}}}')
    with pytest.raises(UserError, match=r"^metrics\.json "):
        check_finite(tmp_path)
