"""The shell, typed as a user types it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

import cgan
from cgan.cli import main
from cgan.config_io import load_config
from cgan.evaluation.judge import Judge
from cgan.storage.checkpoint import read_header, save_tensors
from cgan.storage.paths import JUDGE_FILE, PACKAGED
from tests.conftest import make_pets, open_image
from tests.processes import Process, run_cgan

Shell = Callable[..., Result]
QUICK = (
    "--images", "640", "--set", "control_per_class=0", "--set", "model.width=16", "--device", "cpu",
)  # fmt: skip


def refused(result: Result, *words: str) -> None:
    """Exit status 2, nothing on stdout, one clear line."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("cgan: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line, line


@pytest.mark.parametrize("command", ["train", "generate", "evaluate", "compare", "info", "export"])
def test_help_has_examples(command: str, shell: Shell) -> None:
    result = shell(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"cgan {command}" in result.output


def test_train_generate_info_evaluate(shell: Shell, tmp_path: Path) -> None:
    trained = shell("train", "--conditional", "--images", "6k", "--set", "control_per_class=50")
    assert trained.exit_code == 0, trained.output
    assert "cgan generate runs/digits-mlp --digit 7" in trained.stdout
    assert "control accuracy" in trained.stdout
    assert "images/s" in trained.stderr

    drawn = shell("generate", "--digit", "7")
    assert drawn.exit_code == 0
    path = Path(drawn.stdout.strip())
    image = open_image(path)
    assert (image.mode, image.size) == ("L", (4 * 8 * 7 + 3 * 2 * 7,) * 2)
    assert "runs/digits-mlp" in drawn.stderr

    figures = json.loads(shell("info", "--json").stdout)
    assert figures["classes"] == list("0123456789")
    assert figures["config"]["name"] == "digits-mlp"
    assert figures["config"]["model"]["width"] == 256  # the default of the mlp, written out
    assert figures["parameters"] > 1_000
    said = shell("info").stdout
    assert f"{100 * figures['measured']['control_accuracy']:.2f} %" in said

    judged = json.loads(shell("evaluate", "--json", "--per-class", 50).stdout)
    assert judged["control_accuracy"] == figures["measured"]["control_accuracy"]
    assert sum(map(sum, judged["confusion"])) == 500
    assert judged["figures"]["fid"]["value"] == pytest.approx(figures["measured"]["fid"])
    table = shell("evaluate", "runs/digits-mlp", "--per-class", 50, "--html", "page.html")
    assert table.exit_code == 0
    first, second = table.stdout.splitlines()[:2]
    assert first == "runs/digits-mlp"
    assert second.startswith("control accuracy")
    for words in (
        "requested class (rows)",
        "95 % interval",
        "of digits",
        "test images: about 20 % of all images",
        "diversity",
    ):
        assert words in table.stdout
    page = (tmp_path / "page.html").read_text()
    assert f"{100 * judged['control_accuracy']:.2f}" in page
    assert page.count("<svg") >= 3  # the curves of the run

    # The judge lies in the run's folder, so verifying needs no data.
    checked = shell("generate", "--verify", "--out", "verified", "-n", 20)
    assert checked.exit_code == 0, checked.output
    accepted, drawn_ = re.findall(r"accepted (\d+) of (\d+) draws", checked.stderr)[0]
    assert int(accepted) == 200 < int(drawn_)
    assert len(list(Path("verified").rglob("*.png"))) == 200


def test_verify_names_its_judge_and_ignores_one_of_other_data(
    shell: Shell, small_run: cgan.Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tensors = cgan.load(small_run.folder).generator.state_dict()
    judge = Judge.load(PACKAGED / "digits" / JUDGE_FILE)
    header = {**cgan.load(small_run.folder).header, "measured": {
        "control_accuracy": 0.5, "judge": "0" * 64,
    }}  # fmt: skip
    save_tensors(folder / "generator.safetensors", tensors, header)

    judge.save(folder / JUDGE_FILE)
    drawn = shell("generate", folder, "--digit", 0, "-n", 2, "--verify")
    assert drawn.exit_code == 0, drawn.output
    assert f"verified: judge {judge.weights_digest[:8]} of digits accepted" in drawn.stderr
    assert "another judge measured the control accuracy" in drawn.stderr

    header["measured"]["judge"] = judge.weights_digest
    save_tensors(folder / "generator.safetensors", tensors, header)
    assert "another judge" not in shell("generate", folder, "-n", 1, "--verify").stderr

    header["data_digest"] = "2" * 64  # not the data of the packaged judge
    save_tensors(folder / "generator.safetensors", tensors, header)
    judge.header = replace(judge.header, digest="1" * 64, data="other digits")
    judge.save(folder / JUDGE_FILE)
    ignored = shell("generate", folder, "-n", 1, "--verify", "--data", "digits")
    assert "is ignored" not in ignored.stderr  # --data asks for the judge of that data
    ignored = shell("generate", folder, "-n", 1, "--verify")
    assert "is a judge of other digits, not of this generator's data: it is ignored" in (
        ignored.stderr
    )
    assert ignored.exit_code == 0, ignored.output  # the judge of the named data takes its place


def test_compare_sets_plain_beside_conditional(
    shell: Shell, small_run: cgan.Run, plain_run: cgan.Run
) -> None:
    words = ("compare", small_run.folder, plain_run.folder, "--per-class", 20)
    both = json.loads(shell(*words, "--json").stdout)
    assert [one["conditional"] for one in both] == [True, False]
    assert both[0]["control_accuracy"] > 0.6
    assert abs(both[1]["control_accuracy"] - 0.1) < 0.1
    table = shell(*words, "--html", "compare.html")
    assert table.exit_code == 0, table.output
    assert "takes no class" in table.stdout
    assert Path("compare.html").read_text().count("data:image/png") >= 2


def test_evaluate_refuses_what_it_cannot_do(
    shell: Shell, small_run: cgan.Run, plain_run: cgan.Run
) -> None:
    refused(shell("evaluate", small_run.folder, "--features", "jugde"), "did you mean 'judge'")
    refused(shell("evaluate", small_run.folder, "--judge", "no.safetensors"), "there is no file no")
    refused(shell("compare", small_run.folder, "--judge", "no.safetensors"), "there is no file no")
    refused(shell("compare", small_run.folder, "runs/none"), "no run or generator file runs/none")
    refused(shell("generate", plain_run.folder, "--verify"), "nothing to verify")


def draw(shell: Shell, run: cgan.Run, *words: object) -> Path:
    result = shell("generate", run.folder, *words)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip())


def test_grid_has_one_row_a_class_and_scales(shell: Shell, small_run: cgan.Run) -> None:
    words = ("--class", 3, "--class", 7, "-n", 5, "--scale", 1, "--out", "a.png")
    assert open_image(draw(shell, small_run, *words)).size == (5 * 8 + 4 * 2, 2 * 8 + 2)
    whole = draw(shell, small_run, "-n", 2, "--scale", 2, "--out", "b.png")
    assert open_image(whole).size == (2 * (2 * 8 + 2), 2 * (10 * 8 + 9 * 2))


def test_same_seed_same_bytes_in_every_company(shell: Shell, small_run: cgan.Run) -> None:
    alone = draw(shell, small_run, "--digit", 7, "-n", 1, "--seed", 70, "--out", "alone")
    many = draw(shell, small_run, "-n", 100, "--out", "many")
    one, other = alone / "7" / "seed-000070.png", many / "7" / "seed-000070.png"
    assert one.read_bytes() == other.read_bytes()
    assert len(list(many.rglob("*.png"))) == 1_000
    assert open_image(one).size == (8, 8)


def test_a_named_class_of_ones_own_pictures(shell: Shell, pets: Path) -> None:
    trained = shell("train", "--data", pets, "--images", 640, "--set", "control_per_class=20")
    assert trained.exit_code == 0, trained.output
    assert "config folder-dcgan" in trained.stderr
    assert "cgan generate runs/folder-dcgan --class dog" in trained.stdout
    drawn = shell("generate", "--class", "cat", "--class", "dog", "-n", 8, "--out", "pets.png")
    assert open_image(drawn.stdout.strip()).mode == "RGB"
    refused(shell("generate", "--class", "cta"), "no class 'cta'", "did you mean 'cat'")
    refused(shell("generate", "--digit", 7), "not digits", "--class", "cat, dog")


def test_plain_says_how_to_choose(shell: Shell, plain_run: cgan.Run) -> None:
    refused(
        shell("generate", plain_run.folder, "--digit", 7),
        "a plain GAN cannot choose",
        "cgan steer",
    )
    assert draw(shell, plain_run, "-n", 4, "--out", "p.png").exists()


def test_digits_that_are_none(shell: Shell, small_run: cgan.Run) -> None:
    refused(shell("generate", small_run.folder, "--digit", 12), "no class '12'")
    refused(shell("generate", small_run.folder, "--class", "seven"), "choose from 0, 1")
    refused(shell("generate", small_run.folder, "-n", 0), "at least 1")
    refused(shell("generate", small_run.folder, "--seed", -1), "seed")
    refused(shell("generate", small_run.folder, "--out", "x.jpg"), ".png file or a folder")


def test_dry_run_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    result = shell("train", "--plain", "mnist-dcgan", "--minutes", 2, "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.search(r"would train +a plain GAN for 2 minutes on", result.stdout)
    assert re.search(r"generator +[\d,]+ parameters", result.stdout)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_resume_names_the_run(shell: Shell) -> None:
    assert shell("train", *QUICK).exit_code == 0
    result = shell("train", "--resume", "--images", "1280", "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.search(r"would write +runs/digits-mlp$", result.stdout.rstrip())


def test_resume_with_a_config_keeps_the_budget_of_the_run(shell: Shell) -> None:
    assert shell("train", *QUICK, "--set", "control_per_class=0").exit_code == 0
    ended = load_config("runs/digits-mlp/config.yaml").images
    assert ended != load_config("digits-mlp").images
    more = ("train", "digits-mlp", "--resume", *QUICK[2:])
    planned = shell(*more, "--images", "3k", "--dry-run")
    assert re.search(r"would write +runs/digits-mlp$", planned.stdout.rstrip())
    assert shell(*more).exit_code == 0
    assert load_config("runs/digits-mlp/config.yaml").images == ended
    assert load_config("runs/digits-mlp/config.yaml").control_per_class == 0  # and other settings
    refused(shell("train", "--resume", "--out", "nothere"), "nothere contains no state of a run")
    refused(shell("train", "digits-mlp", "--resume", "--out", "nothere", "--dry-run"), "no state")
    refused(shell("train", "runs/digits-mlp"), "is a run, not a config: continue it with --resume")


def test_reports_replace_no_other_files(
    shell: Shell, small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused before the evaluation."""
    monkeypatch.setattr("cgan.evaluation.api.build_report", None)
    Path("own.safetensors").write_bytes(b"own")
    evaluate = ("evaluate", small_run.folder)
    refused(shell(*evaluate, "--html", "own.safetensors"), "--html takes a .html file, not own.s")
    refused(shell("compare", small_run.folder, "--html", "own.safetensors"), "--html takes a .html")
    assert Path("own.safetensors").read_bytes() == b"own"
    Path("a.html").mkdir()
    refused(shell(*evaluate, "--html", "a.html"), "cannot write a.html: it is a folder")
    below = "own.safetensors/b.html"
    refused(shell(*evaluate, "--html", below), "own.safetensors is a file; choose another place")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(shell(*evaluate, "--html", "b.html"), "no permission to write b.html")
    late = ("--fail-under", "recall_truncation_0.8=0.5")
    refused(shell(*evaluate, *late), "needs --truncation, which measures it")


def test_names_of_the_package_and_folders(shell: Shell) -> None:
    Path("mnist").mkdir()
    assert shell("generate", "mnist", "--digit", 7, "-n", 1).exit_code == 0
    refused(shell("generate", "nist"), "did you mean 'mnist'?")


def test_the_package_is_not_written_to(shell: Shell) -> None:
    before = (PACKAGED / "mnist" / "generator.onnx").stat().st_mtime_ns
    done = shell("export", "mnist")
    assert (done.exit_code, done.stdout) == (0, "mnist.onnx\n")
    assert (PACKAGED / "mnist" / "generator.onnx").stat().st_mtime_ns == before


def test_the_control_accuracy_is_that_of_such_images(shell: Shell) -> None:
    words = ("generate", "mnist", "-n", 1, "--out", "a.png")
    assert "control accuracy" in shell(*words, "--digit", 7).stderr
    for others in (("--mix", "3=0.5,8=0.5"), ("--digit", 7, "--truncation", 0)):
        assert "generated by mnist (in the package)\n" in shell(*words, *others).stderr


def test_no_judge_is_trained_for_nothing(
    shell: Shell, plain_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.evaluation.api.find_judge_of", None)
    refused(shell("generate", plain_run.folder, "--verify"), "nothing to verify")
    many = ("--verify", "--count", 10, "--out", "set")
    refused(shell("generate", plain_run.folder, *many), "nothing to verify")


def test_options_override_the_config(shell: Shell) -> None:
    result = shell(
        "train", "digits-mlp", "--model", "dcgan", "--loss", "hinge", "--update", "simultaneous",
        "--images", "1.5k", "--batch-size", 32, "--lr", "1e-3", "--seed", 9, "--device", "cpu",
        "--set", "model.width=8", "--set", "betas=[0.5, 0.9]", "--set", "control_per_class=0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = load_config("runs/digits-mlp/config.yaml")
    assert (config.model.backbone, config.model.width, config.loss) == ("dcgan", 8, "hinge")
    assert (config.update, config.images, config.batch_size) == ("simultaneous", 1_500, 32)
    assert (config.lr, config.seed, config.betas) == (1e-3, 9, (0.5, 0.9))


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (("digits-mpl",), ("no config 'digits-mpl'", "did you mean 'digits-mlp'")),
        (("none.yaml",), ("there is no config file none.yaml",)),
        (("--data", "mnits"), ("no data set or folder 'mnits'", "did you mean 'mnist'")),
        (("--data", "./nowhere"), ("there is no folder ./nowhere",)),
        (("--model", "vit"), ("no backbone 'vit'", "mlp, dcgan")),
        (("--loss", "hing"), ("did you mean 'hinge'",)),
        (("--update", "simultan"), ("did you mean 'simultaneous'",)),
        (("--images", "many"), ("images", "'many'")),
        (("--images", "5", "--minutes", "5"), ("either in",)),
        (("--minutes", "5", "--set", "images=100k"), ("either in",)),
        (("--seed", "1", "--set", "seed=2"), ("seed is given twice",)),
        (("x" * 300,), ("no config 'xxx",)),
        (("--lr", "-1"), ("lr", "greater than 0")),
        (("--set", "lr"), ("key=value",)),
        (("--set", "modle.width=3"), ("unknown key 'modle'", "did you mean 'model'")),
        (("--device", "cuda:77"), ("--device cpu",)),
        (("--device", "gpu"), ("device",)),
        (("--resume",), ("leave out --resume",)),
        (("digits-mlp", "--resume"), ("leave out --resume",)),
        (("--size", "30"), ("data.size", "multiple of 4")),
        (("--size", "32"), ("digits has a fixed image size",)),
        (("--set", "bf16=true", "--device", "cpu"), ("bf16 needs a CUDA device",)),
    ],
)
def test_bad_words_for_train(
    words: tuple[str, ...], answers: tuple[str, ...], shell: Shell, tmp_path: Path
) -> None:
    if "cuda:77" in words:
        import torch

        if torch.cuda.is_available():
            pytest.skip("another sentence where there is CUDA")
    refused(shell("train", *words), *answers)
    assert list(tmp_path.iterdir()) == []


def test_bad_folders(shell: Shell, tmp_path: Path, pets: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(shell("train", "--data", "empty"), "no images in")
    (pets / "cat" / "00.png").write_bytes(b"broken")
    refused(shell("train", "--data", "pets"), "00.png", "--skip-broken")
    skipped = shell("train", "--data", "pets", "--skip-broken", *QUICK)
    assert skipped.exit_code == 0
    assert "skipped the broken image" in skipped.stderr
    make_pets(tmp_path / "one")
    for path in (tmp_path / "one" / "dog").iterdir():
        path.unlink()
    refused(shell("train", "--data", "one"), "one class only", "--plain")


def test_bad_generator_files(shell: Shell, small_run: cgan.Run, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    refused(shell("generate", path), "no run or generator file")
    refused(shell("info", tmp_path), "is it the folder of a run?")
    path.write_bytes(b"")
    refused(shell("generate", path), "is empty")
    path.write_bytes(pickle.dumps([1]))
    refused(shell("generate", path), "is a pickle")
    path.write_bytes(small_run.generator.read_bytes()[:-10])
    refused(shell("evaluate", path), "damaged")
    tensors = load_file(small_run.generator)
    save_file(tensors, path)
    refused(shell("info", path), "another program")
    header = read_header(small_run.generator, "cgan-generator")
    save_tensors(path, tensors, {**header, "format_version": 99})
    refused(shell("generate", path), "format version 99", "upgrade")


def test_unwritable_places(shell: Shell, small_run: cgan.Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(shell("generate", small_run.folder, "--out", "file/x.png"), "another place")
    refused(shell("train", *QUICK, "--out", "file/run"), "another place")


def train_on_a_small_disk(*words: str) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    sys.argv = ["cgan", "train", *words, "--set", "model.width=256"]
    main()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_really_full_disk(small_run: cgan.Run, tmp_path: Path) -> None:
    """A limit on file size makes the kernel refuse a real write, as a full disk does."""
    done = Process(train_on_a_small_disk, *QUICK, "--out", str(tmp_path / "run"))
    assert done.wait() == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert not [path for path in (tmp_path / "run").iterdir() if ".safetensors." in path.name]


def test_evaluate_needs_to_know_the_data(
    shell: Shell, pets: Path, tmp_path: Path, small_run: cgan.Run
) -> None:
    trained = shell("train", "--data", pets, *QUICK)
    assert trained.exit_code == 0, trained.output
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((tmp_path / "runs/folder-dcgan/generator.safetensors").read_bytes())
    assert str(tmp_path) not in json.dumps(read_header(alone, "cgan-generator"))
    pets = pets.rename(tmp_path / "moved")
    refused(shell("evaluate", alone), "give its location with --data")
    found = shell("evaluate", alone, "--data", "moved", "--per-class", 10, "--json")
    assert found.exit_code == 0, found.output
    assert found.stderr.count("resized to") == 1  # although two splits were read
    refused(
        shell("evaluate", small_run.folder, "--data", pets),
        "has 3 × 8 × 8 values: give the generator's",
    )


def test_resume_without_words_goes_on_with_the_newest(shell: Shell) -> None:
    assert shell("train", *QUICK).exit_code == 0
    longer = shell("train", "--resume", "--images", "1280")
    assert longer.exit_code == 0, longer.output
    assert "resuming after 640 images" in longer.stderr
    refused(
        shell("train", "digits-mlp", "--model", "dcgan", *QUICK, "--resume"),
        "was trained with model.backbone 'mlp', not 'dcgan'",
    )


def test_resuming_what_is_finished_says_so(shell: Shell) -> None:
    assert shell("train", *QUICK).exit_code == 0
    again = shell("train", "--resume")
    assert again.exit_code == 0
    assert "its budget is spent" in again.stderr


def test_for_real_in_a_pipe(tmp_path: Path, small_run: cgan.Run) -> None:
    """The output is plain text, the path stands alone on stdout."""
    assert "train" in run_cgan("--help", cwd=tmp_path).stdout
    words = [sys.executable, "-m", "cgan", "generate", str(small_run.folder), "--digit", "7"]
    drawn = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert Path(drawn.stdout.strip()).exists()
    assert "\x1b" not in drawn.stdout + drawn.stderr
    wrong = run_cgan("generate", small_run.folder, "--digit", "77", cwd=tmp_path)
    assert wrong.poll() == 2
    assert wrong.stdout == ""
    assert len(wrong.stderr.splitlines()) == 1


def test_rectangles_from_training_to_export(shell: Shell, pets: Path, tmp_path: Path) -> None:
    quiet = (*QUICK, "--images", 64, "--out", "run")
    done = shell("train", "--data", pets, "--size", "24x16", *quiet)
    assert done.exit_code == 0, done.output
    assert "resized to 24×16 in colour" in done.output
    assert cgan.load(tmp_path / "run").sample("cat").shape == (1, 3, 16, 24)
    assert "24×16, colour" in shell("info", "run").stdout
    assert shell("evaluate", "run", "--per-class", 4).exit_code == 0
    assert shell("export", "run").exit_code == 0
    assert shell("generate", "run", "--class", "cat", "-n", 1, "--out", "cat.png").exit_code == 0
    width, height = open_image(tmp_path / "cat.png").size
    assert 2 * width == 3 * height
