"""What is loaded to be trained is data: no code that lies beside weights or adapters is run, and nothing is unpickled
into more than tensors."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError

from tests.trainer.chats import rows, tiny_recipe
from trainer import checkpoints, training, tuning

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("bot", "trainer", "storage", "schedules", "huigan", "benchmarks")
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
PICKLED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            yield path.relative_to(REPOSITORY), ast.parse(path.read_text(encoding="utf-8"))


def test_no_module_unpickles_or_loads_with_torch() -> None:
    found = []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named = {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                named = {node.module or ""}
            else:
                is_load = isinstance(node, ast.Attribute) and node.attr == "load"
                named = (
                    {"pickle"} if is_load and ast.unparse(node) in {"torch.load", "numpy.load", "np.load"} else set()
                )
            found += [f"{path}:{node.lineno}" for each in named if each.partition(".")[0] in UNPICKLING]
    assert found == []


def test_whatever_loads_weights_or_tokenizers_trusts_no_code_and_takes_safetensors_alone() -> None:
    seen, wrong = 0, []
    for path, tree in modules():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained")):
                continue
            given, loader = {each.arg: ast.unparse(each.value) for each in node.keywords}, ast.unparse(node.func)
            if "PeftModel" in loader:  # has no such switch: see `with_adapter`
                assert path == Path("trainer/tuning.py")
                continue
            seen += 1
            is_safe = "Tokenizer" in loader or "gguf_file" in given or given.get("use_safetensors") == "True"
            if given.get("trust_remote_code") != "False" or not is_safe:
                wrong.append(f"{path}:{node.lineno}")
    assert seen >= 5
    assert wrong == []


LOAD = """
import json, sys
from pathlib import Path
from storage.recipe import Train
from trainer import stages, training, tuning
how, folder = sys.argv[1], Path(sys.argv[2])
if how == "tokenizer":
    training.load_tokenizer(folder)
    stages.tokenizer_of(folder)
else:
    tuning.load_base(folder, Train(), in_4bit=False)
"""


@pytest.mark.parametrize("how", ["tokenizer", "base"])
@pytest.mark.parametrize("model_type", ["llama", "own"])
def test_code_beside_weights_is_not_run_and_nobody_is_asked_to_run_it(
    tiny: Path, tmp_path: Path, how: str, model_type: str
) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(tiny, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    classes = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Own", None]}
    for name in ("config.json", "tokenizer_config.json"):
        told = json.loads((folder / name).read_text()) | {"auto_map": classes}
        told |= {"model_type": model_type} if name == "config.json" else {}
        (folder / name).write_text(json.dumps(told))
    loading = [sys.executable, "-c", LOAD, how, str(folder)]
    loaded = subprocess.run(loading, cwd=REPOSITORY, input="y\ny\ny\n", text=True, capture_output=True, timeout=120)
    assert not (tmp_path / "ran").exists()
    assert "[y/N]" not in loaded.stdout + loaded.stderr
    is_known = how == "tokenizer" or model_type == "llama"  # without the code: what transformers has itself will do
    assert (loaded.returncode == 0) == is_known, loaded.stderr[-500:]


@pytest.mark.parametrize(
    "reaching", ["''.__class__.__mro__", "messages.append(1)", "cycler.__init__.__globals__", "range(999999999)"]
)
def test_a_chat_template_reaches_nothing_but_the_messages(tiny: Path, reaching: str) -> None:
    tokenizer = training.load_tokenizer(tiny)
    tokenizer.chat_template = "{{ " + reaching + " }}"
    with pytest.raises((SecurityError, OverflowError)):
        tokenizer.apply_chat_template([{"role": "user", "content": "茶"}], tokenize=False)


def test_an_adapter_that_is_a_pickle_is_refused_before_peft_sees_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FileNotFoundError, match="as safetensors"):
        tuning.with_adapter(None, tmp_path)


class Hostile:
    """Runs something wherever it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", PICKLED)
def test_a_checkpoint_with_a_hostile_pickle_runs_nothing_when_training_goes_on_from_it(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    recipe, mark, run = tiny_recipe(), tmp_path / "ran", tmp_path / "run"

    def stop_at_3(_stage: object, step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(tiny, rows("sft"), recipe, run, stage="sft", progress=stop_at_3)
    [checkpoint] = (run / "checkpoints").glob("checkpoint-2")
    assert (checkpoint / name).is_file()
    written = io.BytesIO()
    pickle.dump(Hostile(mark), written)
    (checkpoint / name).write_bytes(written.getvalue())
    checkpoints.mark_whole(checkpoint)  # whoever can write a checkpoint can write its seal, too
    if name == "training_args.bin":  # written by the library, and never read again
        training.train(tiny, rows("sft"), recipe, run, stage="sft")
    else:
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            training.train(tiny, rows("sft"), recipe, run, stage="sft")
    assert not mark.exists()
