# SPDX-License-Identifier: Apache-2.0

import numpy as np

from sw import text


def test_bytes_are_tokens():
    assert text.encode("aé\n").tolist() == [text.BOS, 97, 0xC3, 0xA9, 10]
    assert text.decode([text.BOS, 97, 0xC3, 0xA9, text.EOS]) == "aé"
    assert text.decode([0xC3, 97]) == "\ufffda"
    assert text.VOCABULARY == 1 + max(text.BOS, text.EOS)


def test_sequences_begin_with_lines():
    tokens = np.array([*b"ab\nc\n\nd", text.EOS, *b"ef\n", text.EOS])
    begins = text.lines(tokens, 2)
    assert begins.tolist() == [0, 3, 5, 6, 8]
    assert text.sequences(tokens, begins, 2).tolist() == [
        [text.BOS, *b"ab"], [text.BOS, *b"c\n"], [text.BOS, *b"\nd"], [text.BOS, *b"d", text.EOS], [text.BOS, *b"ef"]]
    assert text.lines(tokens, 4).tolist() == [0, 3, 5, 6, 8]
    assert text.lines(tokens, 5).tolist() == [0, 3, 5, 6]


def test_files_are_learned_from_or_held_out(tmp_path, monkeypatch):
    """Whole files, each once, by their path alone; tests and tables not at all."""
    numbers = {f"{number:03}" for number in range(300)}
    for number in numbers:
        (tmp_path / f"{number}.py").write_text(f"{number}\n")
    for name in "test/test_a.py", "encodings/cp437.py", "json/tests/a.py", "_sysconfigdata_linux.py", "a.txt":
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("no")
    monkeypatch.setattr(text.sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    learned = text.decode(text.training()).split()
    held_out = {number for number in map(text.decode, text.held_out(3)) if len(number.strip()) == 3}
    assert held_out and held_out <= numbers - set(learned)
    assert set(learned) < numbers and 270 < len(set(learned)) == len(learned) == (text.training() == text.EOS).sum()


def test_the_library_of_this_python():
    learned, held_out = text.training(), text.held_out(256)
    assert len(learned) > 5_000_000 and 1 / 40 < held_out[:, 1:].size / learned.size < 1 / 10
    assert held_out.shape[1] == 257 and (held_out[:, 0] == text.BOS).all()
    assert max(learned.max(), held_out.max()) < text.VOCABULARY
