"""Bad files and bad values give one clear InputError; good ones the values a YAML 1.2 reader would."""

from __future__ import annotations

import contextlib
import math
import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from offsim.inputs import yaml_input
from offsim.inputs.document import Document, document_from
from offsim.inputs.errors import Expected, InputError, suggestion
from offsim.inputs.fields import Count, Flag, Number, Section
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml, with_overrides
from tests.inputs.messages import message_of


def read_text(folder: Path, text: str | bytes) -> dict[str, Any]:
    path = folder / "x.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(path).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("100_000_000", 100_000_000),
        ("010", 10),
        ("1e8", 1e8),
        ("1E+8", 1e8),
        ("2.5e-3", 2.5e-3),
        (".5", 0.5),
        ("3.", 3.0),
        ("'1e8'", "1e8"),
        ("true", True),
        ("no", False),
        ("Off", False),
        ("'no'", "no"),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("infinite", "infinite"),
        ("[1, two]", [1, "two"]),
        ("{b: 1e8}", {"b": 1e8}),
    ],
)
def test_scalars(tmp_path: Path, text: str, value: object) -> None:
    found = read_text(tmp_path, f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_kept_as_written(tmp_path: Path) -> None:
    assert read_text(tmp_path, "on: 1\nno: 2\n3: 4\n") == {"on": 1, "no": 2, "3": 4}


def test_utf8_with_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert read_text(tmp_path, "\ufeffa: é\r\nb: 1\r\n".encode()) == {"a": "é", "b": 1}


NOT_A_MAPPING = "expected a mapping (lines of 'key: value')"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f": found nothing, {NOT_A_MAPPING}"),
        (b"- 1\n", f": found a list, {NOT_A_MAPPING}"),
        (b"a:\n  b: 1\n  b: 1\n", ":3: duplicate key 'a.b'; the first is on line 2"),
        (
            b"a:\n\tb: 1\n",
            ":2: not valid YAML: found character that cannot start any token (indent with spaces, not tabs)",
        ),
        (b"a: b: c\n", ":1: not valid YAML: mapping values are not allowed in this context"),
        (b"x: 1\na: [1,\n", ":3: not valid YAML: did not find expected node content"),
        (b"x: 1\na: \x00\n", ":2: found the character '\\x00', expected text"),
        (b"x: 1\na: \xff\n", ":2: found byte 0xff, expected UTF-8 text"),
        (b"a: &x [1]\nb: *x\n", ":2: found the alias *x, expected the value written out"),
        (
            b"a: !!python/object/apply:os.system [ls]\n",
            ":1: found the tag 'tag:yaml.org,2002:python/object/apply:os.system', expected a value without one",
        ),
        (b"? [1]\n: 2\n", ":1: found a key that is not a word, expected 'key: value'"),
        (b"a: .nan\n", ":1: found .nan, expected a finite number"),
        (b"a: " + b"9" * 5000, f":1: found {'9' * 57}..., expected a number of ordinary size"),
        (b"a: 1\n---\nb: 2\n", ":2: found a second document, expected one"),
        (b"a: " + b"[" * 500_000, ":1: found more than 16 levels, expected fewer"),
        (b"#" * 1_000_001, ": found more than 1000000 bytes, expected a small YAML file"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    assert message_of(lambda: read_text(tmp_path, content)) == f"{tmp_path / 'x.yaml'}{message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "found a folder, expected a YAML file"),
        ("missing.yaml", "no such file"),
        ("scenaro.yaml", "no such file; did you mean '{folder}/scenario.yaml'?"),
        ("scenario.yaml/x.yaml", "cannot be read: Not a directory"),
        ("a\0b", "cannot be read: embedded null byte"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "scenario.yaml").touch()
    assert message_of(lambda: read_yaml(tmp_path / name)) == f"{tmp_path / name}: {message.format(folder=tmp_path)}"


@given(content=st.binary() | st.text(alphabet="ab:- \n\t{}[],&*!|>'\"#%@?.0e\0").map(str.encode))
def test_any_bytes_give_values_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(read_yaml(path).data, dict)


def test_the_python_parser_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML is sometimes built without libyaml."""
    text = "a: {b: 1e8, c: no}\nd: 'no'\n"
    fast = read_text(tmp_path, text)
    monkeypatch.setattr(yaml_input, "_LOADER", yaml_input.yaml.SafeLoader)
    assert read_text(tmp_path, text) == fast
    with pytest.raises(InputError, match=r":2: found the character '\\x07', expected text"):
        read_text(tmp_path, "a: 1\nb: \x07\n")


class Inner(Section):
    size: Number = Field(gt=0, description="how big")
    kind: Literal["red", "green"] = "red"


class Outer(Section):
    name: str = Field(min_length=1)
    count: Count = 1
    flag: Flag = False
    inner: Inner | None = None
    choice: int | list[int] = 0
    plain: int = 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ncuont: 1", "2: unknown key 'cuont'; did you mean 'count'?"),
        ("name: x\nzzz: 1", "2: unknown key 'zzz'; expected one of: choice, count, flag, inner, name, plain"),
        ("name: x\ninner:\n  sise: 1", "3: unknown key 'sise' in inner; did you mean 'size'?"),
        ("name: x\ninner:\n  kind: red", "2: missing key 'inner.size' (how big)"),
        ("# first\ncount: 1", "2: missing key 'name'"),
        ("name: 5", "1: name: found 5, expected text"),
        ("name: ''", "1: name: found '', expected text that is not empty"),
        ("name: x\ncount: 1.5", "2: count: found 1.5, expected a whole number"),
        ("name: x\ncount: -3", "2: count: found -3, expected at least 1"),
        ("name: x\ncount: 1e20", "2: count: found 1e20, expected at most 1e+15"),
        ("name: x\nflag: 1", "2: flag: found 1, expected true or false"),
        ("name: x\ninner: 3", "2: inner: found 3, expected a section of keys"),
        ("name: x\ninner: {size: nan}", "2: inner.size: found 'nan', expected a finite number"),
        ("name: x\ninner: {size: yes}", "2: inner.size: found yes, expected a number"),
        ("name: x\ninner: {size: 0}", "2: inner.size: found 0, expected more than 0"),
        ("name: x\ninner: {size: 1, kind: blue}", "2: inner.kind: found 'blue', expected 'red' or 'green'"),
        ("name: x\nchoice: [1, x]", "2: choice: found a list, expected a whole number"),
        ("count: 0\nname: 5", "1: count: found 0, expected at least 1"),
    ],
)
def test_values_of_a_file_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert message_of(lambda: validate(read_yaml(path), Outer)) == f"{path}:{message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "inner": {"size": -1.0}}, "inner.size: found -1.0, expected more than 0"),
        ({"name": "x", "choice": [math.inf]}, "choice.0: found inf, expected a finite number"),
        ({"name": "x", "inner": {3: 4}}, "inner.3: found the key 3, expected text"),
        ({"name": "x", "count": 10**5000}, "count: found more than 30 digits, expected a number of ordinary size"),
        ({"name": "x", "plain": "9" * 5000}, f"plain: found '{'9' * 56}..., expected a number of ordinary size"),
    ],
)
def test_values_of_python_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    assert message_of(lambda: validate(document_from(values), Outer)) == message


def test_a_mapping_that_contains_itself_is_refused() -> None:
    values: dict[str, Any] = {}
    values["a"] = values
    with pytest.raises(InputError, match=r"^a\.a\.a\.\.\.: found more than 16 levels, expected fewer$"):
        document_from(values)


def test_a_default_that_does_not_go_with_what_is_given() -> None:
    class Pair(BaseModel):
        low: int = 1
        high: int

        def model_post_init(self, _: object) -> None:
            if self.high < self.low:
                raise Expected(f"at most high ({self.high})", at=("low",))

    with pytest.raises(InputError, match=r"^low: expected at most high \(0\)$"):
        validate(document_from({"high": 0}), Pair)


@pytest.mark.parametrize(
    ("override", "data"),
    [
        ("count=3", {"name": "x", "inner": {"size": 1}, "count": 3}),
        ("name=a=b", {"name": "a=b", "inner": {"size": 1}}),
        ("inner.size=2", {"name": "x", "inner": {"size": 2}}),
        ("inner={size: 4}", {"name": "x", "inner": {"size": 4}}),
        ("choice=[1, 2]", {"name": "x", "inner": {"size": 1}, "choice": [1, 2]}),
        ("new.section.key=1", {"name": "x", "inner": {"size": 1}, "new": {"section": {"key": 1}}}),
    ],
)
def test_overrides(override: str, data: dict[str, Any]) -> None:
    document = document_from({"name": "x", "inner": {"size": 1}})
    assert with_overrides(document, [override]).data == data
    assert document.data == {"name": "x", "inner": {"size": 1}}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("count", "expected key=value, such as training.micro_batch=2"),
        ("name.first=3", "'name' is a value, not a section of keys"),
        ("inner.sise=3", "unknown key 'sise' in inner; did you mean 'size'?"),
        ("inner.size=-1", "inner.size: found -1, expected more than 0"),
        ("count=[1", "not valid YAML: did not find expected ',' or ']'"),
        ("name=\udc80", "found the character '\\udc80', expected text"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, problem: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ninner: {size: 1}\n")
    message = message_of(lambda: validate(with_overrides(read_yaml(path), [override]), Outer))
    assert message == f"override '{override}': {problem}"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (".".join("a" * 20_000), "found a key of 20000 parts, expected at most 16"),
        ("sched\udcffuler.x", "found the character '\\udcff' in the key, expected text"),
    ],
)
def test_keys_of_overrides_have_a_limit(key: str, problem: str) -> None:
    message = message_of(lambda: with_overrides(Document(), [f"{key}=1"]))
    assert message.endswith(f": {problem}")
    assert len(message) < 200


class Even(Section):
    window: int = Field(multiple_of=2)


def test_what_other_validators_say_comes_with_what_was_found() -> None:
    with pytest.raises(InputError, match=r"^override 'window=3': window: found 3: Input should be a multiple of 2$"):
        validate(with_overrides(Document(), ["window=3"]), Even)


def test_whole_numbers_of_numpy_are_counts() -> None:
    numpy = pytest.importorskip("numpy")
    assert validate(document_from({"name": "x", "count": numpy.int64(3)}), Outer).count == 3


def test_counts_given_as_text_keep_all_digits() -> None:
    assert validate(document_from({"name": "x", "count": "123456789012345"}), Outer).count == 123456789012345


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert str(InputError("found 'a\nb'", "x.yaml:3")) == "x.yaml:3: found 'a\\nb'"
    assert len(str(InputError("x" * 5000))) == 1000


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InputError("a problem", "x.yaml:3")))
    assert (str(error), error.problem, error.where) == ("x.yaml:3: a problem", "a problem", "x.yaml:3")


@pytest.mark.parametrize(
    ("name", "valid", "text"),
    [
        ("SIZ", ["size", "x"], "; did you mean 'size'?"),
        ("zzz", ["b", "a"], "; expected one of: a, b"),
        ("zzz", [], "; nothing is expected here"),
    ],
)
def test_suggestions(name: str, valid: list[str], text: str) -> None:
    assert suggestion(name, valid) == text
