"""A site's settings: every word is known, typed and answered for, and the command line has the last one."""

import pytest

from attnbench.engine import settings
from attnbench.engine.settings import SiteSettings


def write(tmp_path, text):
    file = tmp_path / "attnbench.toml"
    file.write_text(text)
    return file


def test_without_a_file_everything_has_its_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings.read() == SiteSettings()


def test_the_users_file_is_found_in_the_configuration_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = settings.users_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('[slurm]\npartition = "gpu"\n')
    assert file.name == "attnbench.toml"
    assert settings.read().partition == "gpu"


def test_a_file_is_read_whole(tmp_path):
    file = write(
        tmp_path,
        """
        [slurm]
        partition = "gpu"
        setup = ["module load cuda", "ulimit -n 4096"]
        shared_timing = true
        poll_s = 30
        [slurm.options]
        reservation = "week"
        no-requeue = true
        """,
    )
    assert settings.read(file) == SiteSettings(
        partition="gpu",
        setup=("module load cuda", "ulimit -n 4096"),
        shared_timing=True,
        poll_s=30,
        options={"reservation": "week", "no-requeue": True},
    )


def test_the_command_line_wins_over_the_file(tmp_path):
    file = write(tmp_path, '[slurm]\npartition = "gpu"\naccount = "a"\n[slurm.options]\nreservation = "week"\n')
    words = ["partition=cpu", "options.nice=10", "setup=module load x; module load y", "shared_timing=true"]
    found = settings.read(file, words)
    assert (found.partition, found.account, found.shared_timing) == ("cpu", "a", True)
    assert found.options == {"reservation": "week", "nice": "10"}
    assert found.setup == ("module load x", "module load y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[slurm]\npartitoin = 'gpu'", r"unknown setting 'partitoin'\. Did you mean 'partition'\?"),
        ("[slrum]\npartition = 'gpu'", r"unknown setting 'slrum'\. Did you mean 'slurm'\?"),
        ("partition = 'gpu'", r"unknown setting 'partition'\. There are slurm\."),
        ("slurm = 3", r"slurm is a table, written \[slurm\]; got 3"),
        ("[slurm]\npartition = 3", r"partition is a text that is not empty; got 3"),
        ("[slurm]\npartition = ' '", r"partition is a text that is not empty; got ' '"),
        ("[slurm]\nsetup = 'module load x'", r"setup is a list of shell lines; got 'module load x'"),
        ("[slurm]\nsetup = [1]", r"setup is a list of shell lines; got \[1\]"),
        ("[slurm]\nshared_timing = 1", r"shared_timing is true or false; got 1"),
        ("[slurm]\npoll_s = 0", r"poll_s is a number above 0; got 0"),
        ("[slurm]\npoll_s = true", r"poll_s is a number above 0; got True"),
        ("[slurm]\noptions = ['x']", r"options is a table of sbatch options; got \['x'\]"),
        ("[slurm.options]\nhold = true", r"'hold' belongs to attnbench"),
        ("[slurm.options]\njob_name = 'x'", r"'job-name' belongs to attnbench"),
        ("[slurm.options]\nnice = false", r"'nice' is a text, a number or true; got False"),
        ("[slurm", r"cannot be read: "),
    ],
)
def test_a_wrong_file_is_answered_with_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as refused:
        settings.read(write(tmp_path, text))
    assert "attnbench.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("partition", r"written name=value; got 'partition'"),
        ("partion=x", r"the command line has the unknown setting 'partion'\. Did you mean 'partition'\?"),
        ("poll_s=soon", r"poll_s is a number above 0; got 'soon'"),
        ("shared_timing=yes", r"shared_timing is true or false; got 'yes'"),
        ("options.signal=USR1", r"'signal' belongs to attnbench"),
    ],
)
def test_a_wrong_word_is_answered_with_one_sentence(word, message):
    with pytest.raises(ValueError, match=message):
        settings.override(SiteSettings(), [word])


def test_a_missing_file_is_refused_when_it_was_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: "):
        settings.read(tmp_path / "none.toml")
