"""`minipar run`: wrong use is refused before a rank starts."""

import pytest

from minipar.cli import main


def test_a_trace_that_cannot_be_written_is_refused_before_the_script_runs(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("print('it ran')")
    with pytest.raises(SystemExit) as end:
        main(["run", "--backend", "local", "--trace", str(script), str(script)])
    said = capsys.readouterr()
    assert end.value.code == 2 and "it ran" not in said.out
    assert said.err.startswith(f"minipar: --trace {script} cannot be a folder")
