"""Mutations of a model's files and of the text of its configuration."""

import re
from collections.abc import Callable
from random import Random

from scripts.benchmarks.lint_unit import MODEL, Model

Mutation = Callable[[Random, Model], bool]
HANGING = ("no_model_file", "version_like_folder", "shell_sign_in_group", "other_model_file")
"""Mutations that make a load wait for the whole timeout; drawn more rarely."""


def mutations() -> dict[str, Mutation]:
    """Every mutation of this file, by name."""
    return {name.removeprefix("m_"): call for name, call in globals().items() if name.startswith("m_")}


def _model_files(model: Model) -> list[str]:
    return [path for path, content in model.files.items() if content == MODEL.encode()]


def m_no_model_file(rng: Random, model: Model) -> bool:
    path = rng.choice(_model_files(model))
    del model.files[path]
    model.files[path.rpartition("/")[0]] = None
    return True


def m_other_model_file(rng: Random, model: Model) -> bool:
    model.config.default_model_filename = rng.choice(("gone.py", "model", "../model.py", "net.v1.py"))
    return True


def m_code(rng: Random, model: Model) -> bool:
    sound = b"import math\n" + MODEL.encode()
    code = rng.choice((b"", b"def x(:\n", b"value = 1\n", b"class Model:\n    pass\n", sound))
    model.files[rng.choice(_model_files(model))] = code
    return True


def m_version_like_folder(rng: Random, model: Model) -> bool:
    model.files[rng.choice(("99_old", "98.bak", "+97", " 96", "1_old", "2 (copy)", "3.5", "12a"))] = None
    return True


def m_version_out_of_range(rng: Random, model: Model) -> bool:
    model.files[rng.choice(("9223372036854775808", "99999999999999999999_old", "-99999999999999999999"))] = None
    return True


def m_ignored_folder(rng: Random, model: Model) -> bool:
    model.files[rng.choice(("00", "0123", "0x9", "-5", "old", "warmup", "v99999999999999999999"))] = None
    return True


def m_no_version(rng: Random, model: Model) -> bool:
    moved = {re.sub(r"^\d+/", "v/", path): content for path, content in model.files.items()}
    model.files = moved
    return True


def m_directory_for_a_file(rng: Random, model: Model) -> bool:
    named = [path for path in model.files if path.endswith(("labels.txt", "labels/of.txt", "/sample", "/zeros"))]
    if not named:
        model.config.output[0].label_filename = rng.choice((".", "/", "labels"))
        model.files["labels/x"] = b""
        return True
    path = rng.choice(named)
    del model.files[path]
    model.files[f"{path}/x"] = b""
    return True


def m_named_file_gone(rng: Random, model: Model) -> bool:
    named = [path for path in model.files if path.endswith(("labels.txt", "labels/of.txt", "/sample", "/zeros"))]
    if not named:
        model.config.output[0].label_filename = rng.choice(("gone.txt", "/etc/hostname"))
        return True
    del model.files[rng.choice(named)]
    return True


def m_linked(rng: Random, model: Model) -> bool:
    path = rng.choice(_model_files(model))
    model.files["kept"] = model.files.pop(path)
    model.files[path.rpartition("/")[0]] = None
    model.links[path] = "../kept" if path.count("/") == 1 else "../../kept"
    return True


def m_batching_library(rng: Random, model: Model) -> bool:
    model.files["batchstrategy.so"] = b"no library"
    return True


def m_shell_sign_in_group(rng: Random, model: Model) -> bool:
    model.config.instance_group.add(kind="KIND_CPU", name=rng.choice(("a b", "a;b", "$(b)", "a'b", "a_b.c-d", "a*b")))
    return True


def m_latin_1(rng: Random, model: Model) -> bool:
    text = model.written().decode("latin-1")
    model.text = rng.choice(
        (f"# Größe\n{text}", f'{text}\nmetric_tags {{ key: "ort" value: "Köln" }}\n', f"{text}  # Köln\n")
    ).encode("latin-1")
    return True


def m_encoding(rng: Random, model: Model) -> bool:
    data = model.written()
    model.text = rng.choice(
        (
            b"\xef\xbb\xbf" + data,
            data.decode("latin-1").encode("utf-16"),
            data + b"\0",
            b"# \0\n" + data,
            data.replace(b" ", "\u00a0".encode(), 1),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\n\f\v", 1),
        )
    )
    return True


def m_syntax(rng: Random, model: Model) -> bool:
    text = model.written().decode("latin-1")
    model.text = rng.choice(
        (
            f"{text}\nunknown: 1\n",
            f"{text}\nmax_batch_size: 1\nmax_batch_size: 1\n",
            f"{text}\nmetric_tags {{",
            f"{text}\n}}\n",
            f"{text}\n// comment\n",
            f"{text}\n/* comment */\n",
            f'{text}\nmetric_tags {{ key: "a" value: "\\q" }}\n',
            f'{text}\nmetric_tags {{ key: "a" value: "\\x41\\102\\n\\u00e9" }}\n',
            f'{text}\nmetric_tags {{ key: "a" value: "b" "c" }}\n',
            f"{text}\nmetric_tags {{ key: 'a' value: 'b' }}\n",
            f'{text}\nmetric_tags < key: "a" value: "b" >\n',
            f'{text}\nmetric_tags {{ key: "a", value: "b"; }}\n',
            f"{text}\nmetric_tags: {{}}\n",
            f'{text}\nmetric_tags {{ key: "a\n" }}\n',
            re.sub(r"dims: (\d+)", r"dims: [ \1 ]", text),
            re.sub(r"dims: (\d+)", r"dims: [ \1, ]", text, count=1),
            re.sub(r"dims: (\d+)", r"dims: 0x\1", text, count=1),
            re.sub(r"dims: (\d+)", r"dims: \1.0", text, count=1),
            re.sub(r"dims: -1", "dims: - 1", text),
            re.sub(r"dims: -1", "dims: -\n1", text),
            re.sub(r"data_type: TYPE_", "data_type: TYP_", text, count=1),
            re.sub(r"data_type: (\w+)", r'data_type: "\1"', text, count=1),
            re.sub(r"true", rng.choice(("1", "t", "True", "yes", "2")), text, count=1),
            f"{text}\nversion_policy {{ latest {{ num_versions: -1 }} }}\n",
            f"{text}\nversion_policy {{ latest {{ num_versions: 4294967296 }} }}\n",
            f"{text}\ndynamic_batching {{ }}\nsequence_batching {{ }}\n",
            f"{text}\nmodel_metrics {{ }}\n",
            f"{text}\n[ext.field]: 1\n",
            "",
        )
    ).encode("latin-1")
    return True
