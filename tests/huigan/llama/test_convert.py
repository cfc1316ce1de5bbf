"""llama.cpp's converter: fetched safely, run apart, its failures told with the fix; and the cross-check of merging."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from huigan.llama import adapter, convert, gguf
from huigan.llama.convert import ConversionFailed, Converter, ConverterMissing
from huigan.llama.merge import merge
from huigan.llama.score import Scorer
from tests.huigan.llama.conftest import tiny_adapter

REPOSITORY = Path(__file__).resolve().parents[3]


def archive(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("llama-1/vendor/llama.cpp/gguf-py/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def script(folder: Path, text: str) -> Converter:
    """A stand-in for the converter that behaves as `text` says."""
    folder.mkdir(exist_ok=True)
    (folder / convert.HF_SCRIPT).write_text(text)
    return Converter(folder)


def test_only_the_conversion_scripts_are_unpacked_and_nothing_escapes(tmp_path: Path) -> None:
    root = "llama-1/vendor/llama.cpp"
    path = archive(
        tmp_path,
        {
            f"{root}/convert_hf_to_gguf.py": b"print()",
            f"{root}/conversion/llama.py": b"",
            f"{root}/src/llama.cpp": b"",
            f"{root}/conversion/../../../../escaped.py": b"",
            f"{root}/../llama.cpp/conversion/odd.py": b"",
            "/absolute/vendor/llama.cpp/conversion/a.py": b"",
            "llama-1/setup.py": b"",
        },
    )
    out = tmp_path / "out"
    convert.unpack(path, out)
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} == {
        "convert_hf_to_gguf.py",
        "conversion/llama.py",
    }
    assert sorted(file.name for file in tmp_path.iterdir()) == ["archive.tar.gz", "out"]


def test_an_archive_whose_scripts_were_renamed_is_told_so(tmp_path: Path) -> None:
    path = archive(tmp_path, {"llama-1/vendor/llama.cpp/convert_new.py": b""})
    with pytest.raises(ConverterMissing, match=r"moved or renamed.*LLAMA_CPP_DIR"):
        convert.unpack(path, tmp_path / "out")


def test_a_checkout_without_the_script_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConverterMissing, match=r"has no convert_hf_to_gguf.py"):
        convert.converter(tmp_path / "data", llama_cpp=tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_checkout_of_the_user_s_is_used_as_it_is(tmp_path: Path) -> None:
    given = script(tmp_path / "checkout", "")
    assert convert.converter(tmp_path / "data", llama_cpp=given.folder) == given


def test_an_archive_with_another_hash_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {})
    with pytest.raises(ConverterMissing, match=r"expected 832db069.*another index or mirror"):
        convert.check(path)


def test_an_index_that_is_not_there_is_told_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ConverterMissing, match=r"PIP_INDEX_URL.*LLAMA_CPP_DIR"):
        convert.fetch(tmp_path)


def test_an_unknown_pre_tokenizer_is_told_with_the_fix(tiny_folder: Path, tmp_path: Path) -> None:
    fails = script(tmp_path / "tools", f"raise NotImplementedError({convert.UNKNOWN_PRE_TOKENIZER!r})")
    with pytest.raises(ConversionFailed, match="original tokenizer files"):
        convert.convert(tiny_folder, tmp_path / "out.gguf", fails)
    assert not (tmp_path / "out.gguf").exists()


def test_a_converter_that_writes_half_a_file_leaves_nothing_behind(
    tiny: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    half.write_bytes(tiny.read_bytes()[:5000])
    copies = f"import shutil, sys; shutil.copy({str(half)!r}, sys.argv[sys.argv.index('--outfile') + 1])"
    with pytest.raises(ConversionFailed, match="truncated"):
        convert.convert(tiny_folder, tmp_path / "out.gguf", script(tmp_path / "tools", copies))
    assert not list(tmp_path.glob("out.gguf*"))


def test_the_converter_runs_with_its_own_gguf_and_without_the_hub(
    tiny: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    tools = script(
        tmp_path / "tools",
        "import os, shutil, sys, gguf\n"
        "assert gguf.OWN and os.environ['HF_HUB_OFFLINE'] == '1'\n"
        f"shutil.copy({str(tiny)!r}, sys.argv[sys.argv.index('--outfile') + 1])",
    )
    (tools.folder / "gguf-py").mkdir()
    (tools.folder / "gguf-py" / "gguf.py").write_text("OWN = True")
    assert convert.convert(tiny_folder, tmp_path / "out.gguf", tools).read_bytes() == tiny.read_bytes()


@pytest.fixture
def with_code(tiny_folder: Path, tmp_path: Path) -> Path:
    """Weights with a tokenizer of their own, which leaves a file `ran` wherever its code is run."""
    folder = tmp_path / "with_code"
    shutil.copytree(tiny_folder, folder)
    ran = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    own = "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast): pass\n"
    (folder / "own.py").write_text(ran + own)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    for name, key in (("tokenizer_config.json", "AutoTokenizer"), ("config.json", "AutoConfig")):
        told = json.loads((folder / name).read_text()) | {"auto_map": {key: ["own.Own", None]}}
        if key == "AutoConfig":  # transformers goes by `model_type`; the converter by this, and trusts those it names
            told["architectures"] = ["DreamModel"]
        spelt = json.dumps(told).replace("auto_map", "auto\\u005fmap" if key == "AutoConfig" else "auto_map")
        (folder / name).write_text(spelt)
    return folder


def plain(config: Path) -> dict[str, Any]:
    """Without what AutoConfig, which is told to trust nothing, would refuse."""
    told: dict[str, Any] = json.loads(config.read_text())
    return {name: each for name, each in told.items() if name != "auto_map"}


def test_the_converter_is_shown_weights_without_code_pickles_and_what_names_code(
    with_code: Path, tiny: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen.json"
    tools = script(
        tmp_path / "tools",
        "import json, pathlib, shutil, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "told = {each.name: json.loads(each.read_text()) for each in folder.glob('*config.json')}\n"
        "listed = {'name': folder.name, 'files': sorted(each.name for each in folder.iterdir()), 'told': told}\n"
        f"open({str(seen)!r}, 'w').write(json.dumps(listed))\n"
        f"shutil.copy({str(tiny)!r}, sys.argv[sys.argv.index('--outfile') + 1])",
    )
    convert.convert(with_code, tmp_path / "out.gguf", tools)
    shown = json.loads(seen.read_text())
    assert shown["name"] == "with_code"
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= set(shown["files"])
    assert not [name for name in shown["files"] if name.endswith((".py", ".bin"))]
    assert all("auto_map" not in each for each in shown["told"].values())
    assert shown["told"]["config.json"]["hidden_size"] == 256
    assert "auto_map" in json.loads((with_code / "config.json").read_text()), "the user's own folder is left alone"


@pytest.fixture(scope="module")
def tools() -> Converter:
    """The real converter, kept in the checkout between runs; skipped where no index serves it."""
    try:
        return convert.converter(REPOSITORY / ".weights")
    except ConverterMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def known_folder(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama with SmolLM2's tokenizer, which the converter knows."""
    folder = tmp_path_factory.mktemp("known") / "hf"
    tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.weights
@pytest.mark.slow
def test_merging_in_gguf_space_equals_merging_in_hugging_face_and_converting(
    known_folder: Path, tools: Converter, tmp_path: Path
) -> None:
    adapted = tiny_adapter(known_folder, tmp_path / "adapter")
    merged_folder = tmp_path / "merged"
    shutil.copytree(known_folder, merged_folder, ignore=shutil.ignore_patterns("*.safetensors"))
    adapted.merge_and_unload().save_pretrained(merged_folder)
    base = convert.convert(known_folder, tmp_path / "base.gguf", tools)
    ours = gguf.read(merge(base, tmp_path / "adapter", tmp_path / "ours.gguf", "F16").path)
    theirs = gguf.read(convert.convert(merged_folder, tmp_path / "theirs.gguf", tools))
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name in ours.tensors:
        assert np.abs(ours.floats(name) - theirs.floats(name)).max() < 0.004, name
    tokenizer_keys = [key for key in theirs.key_values if key.startswith("tokenizer.")]
    assert len(tokenizer_keys) > 5
    assert [ours.key_values[key] for key in tokenizer_keys] == [theirs.key_values[key] for key in tokenizer_keys]


@pytest.mark.weights
@pytest.mark.slow
def test_llama_cpp_s_own_adapter_conversion_agrees_on_the_order_of_rows(
    known_folder: Path, tools: Converter, tmp_path: Path
) -> None:
    tiny_adapter(known_folder, tmp_path / "adapter")
    base = gguf.read(convert.convert(known_folder, tmp_path / "base.gguf", tools))
    theirs = gguf.read(
        convert.convert_lora(tmp_path / "adapter", known_folder, tmp_path / "lora.gguf", tools, outtype="f32")
    )
    for name, delta in adapter.read(tmp_path / "adapter", base).items():
        assert np.array_equal(theirs.floats(f"{name}.lora_b"), delta.b), name
        assert np.array_equal(theirs.floats(f"{name}.lora_a"), delta.a), name
        assert delta.scale == theirs.value("adapter.lora.alpha") / len(delta.a)


@pytest.mark.slow
def test_the_real_converter_does_not_know_a_tokenizer_of_our_own(
    tiny_folder: Path, tools: Converter, tmp_path: Path
) -> None:
    with pytest.raises(ConversionFailed, match=convert.UNKNOWN_PRE_TOKENIZER):
        convert.convert(tiny_folder, tmp_path / "out.gguf", tools)


@pytest.mark.slow
def test_the_real_converter_runs_no_code_that_lies_with_the_weights(
    with_code: Path, tools: Converter, tmp_path: Path
) -> None:
    with pytest.raises(ConversionFailed, match=convert.UNKNOWN_PRE_TOKENIZER):  # so far that it has read the tokenizer
        convert.convert(with_code, tmp_path / "out.gguf", tools)
    assert not (tmp_path / "ran").exists()
    (with_code / "config.json").write_text(json.dumps(plain(with_code / "config.json")))
    with pytest.raises(ConversionFailed):
        convert._run(tools, convert.HF_SCRIPT, [str(with_code)], tmp_path / "out.gguf", "f16")
    assert (tmp_path / "ran").exists(), "shown the folder as it is, it runs it"


@pytest.mark.weights
@pytest.mark.slow
def test_the_shipped_four_bit_file_becomes_a_sixteen_bit_base_that_answers(smollm2_gguf: Path, tmp_path: Path) -> None:
    base = convert.dequantise(smollm2_gguf, tmp_path / "base.gguf")
    before, after = gguf.read(smollm2_gguf), gguf.read(base.path)
    assert {tensor.type.name for tensor in after.tensors.values()} == {"F16", "F32"}
    kept = set(before.key_values) - {"general.file_type"}
    assert {key: after.key_values[key] for key in kept} == {key: before.key_values[key] for key in kept}
    with Scorer(base.path, context_tokens=128) as scorer:
        prompt = scorer.tokenize("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
        (answer,) = scorer.generate([prompt], max_tokens=24)
    assert "Paris" in answer.text
