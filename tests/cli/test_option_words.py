"""Messages in the words of the command: options in place of parameters."""

import inspect

import pytest

from sklearn_featx import ImageReader, PretrainedFeatureExtractor, image_groups
from sklearn_featx.cli import _option_words
from sklearn_featx.cli._main import _parser, main
from sklearn_featx.cli._option_words import in_options
from sklearn_featx.cli._window_words import with_joined_window


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frames='all', with bag_pooling='mean', reads", "--frames all, with --bag-pooling mean, "
         "reads"),
        ("become one: ImageReader(frames=..., bag_pooling='mean').", "become one: "
         "--bag-pooling mean."),
        ("pass reader=ImageReader(value_range=(0, 4095.0)); if", "pass --value-range 0 4095; if"),
        ("value_range=[5.0, 5.5] is", "--value-range 5 5.5 is"),
        ("pass value_range=(low, high).", "pass --value-range low high."),
        ("channels=[0, 2] gives", "--channels 0,2 gives"),
        ("with reader=ImageReader(channels=[...]).", "with --channels."),
        ("layer=['a', 'b']: 'b' occurs", "--layer a --layer b: 'b' occurs"),
        ('pass ImageReader(storage_options={"anon": True}).', "pass --storage-options "
         "'{\"anon\": true}'."),
        ('ImageReader(storage_options={"https": {"a": True}})', "--storage-options "
         "'{\"https\": {\"a\": true}}'"),
        ("ImageReader(storage_options=...).", "--storage-options."),
        ("weights (weights=None).", "weights (--weights none)."),
        ("another `cache`.", "another --cache."),
        ("The 'image_size' parameter of PretrainedFeatureExtractor must be", "--image-size must "
         "be"),
        ("n_jobs=0: expected", "--n-jobs 0: expected"),
        ("bag_pooling='a': expected 'mean', or None.", "--bag-pooling a: expected 'mean', or leave "
         "--bag-pooling out."),
        ("window='lung' is. Pass window=(center, width) or None.", "--window lung is. Pass "
         "--window center width, or leave --window out."),
        ("weights='a': expected 'DEFAULT', a name, a file or None.", "--weights a: expected "
         "'DEFAULT', a name, a file or none."),
        ("The 'n_jobs' parameter of A must be an int or None. Got 'a'", "--n-jobs must be an int, "
         "or leave --n-jobs out. Got 'a'"),
        ("cache='a': no. Pass another path, or cache=False.", "--cache a: no. Pass another path, "
         "or leave --cache out."),
        ("backbone: there is no 'a'", "--backbone: there is no 'a'"),
        ("frames='x': expected 'first', the number of a frame or a slice.", "--frames x: expected "
         "'first', the number of a frame or a range, such as 0:2."),
        ("has no frame in frames=slice(7, None, None): it has 3.", "has no frame in --frames 7:: "
         "it has 3."),
        ("has no frame in frames=slice(None, -9, 2)", "has no frame in --frames :-9:2"),
        ("has no PatientID in its header. Pass a function, or a regular expression on the path, as "
         "`by`.", "has no PatientID in its header. Pass a regular expression on the path, as "
         "--group-by."),
    ],
)  # fmt: skip
def test_parameters_are_options(text, expected):
    assert in_options(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "row 0 ('a/layer=3/frames=1.png'): no such file.",
        """row 0 ("it's layer=3.png"): no such file.""",
        "by/layer=3 and `x.frames=1`",
        "row 0 ('a or None.png'): a file or None; the backbone: no",
        "the image_shape=(8, 8) of another_window=3",
    ],
)
def test_other_text_stays(text):
    assert in_options(text) == text


def test_each_parameter_has_its_option():
    known = {
        name
        for of in (ImageReader, PretrainedFeatureExtractor, image_groups)
        for name in inspect.signature(of).parameters
    }
    options = _option_words._OPTIONS
    assert set(options) <= known
    help_text = _parser()._subparsers._group_actions[0].choices["extract"].format_help()
    assert all(f"{option} " in help_text for option in options.values())


def test_errors_and_warnings_name_options(pictures, tmp_path, capsys):
    output = ["-o", str(tmp_path / "f.npz"), "-q", "--image-size", "32"]
    assert main(["extract", str(pictures), *output, "--frames", "all"]) == 2
    assert "--bag-pooling mean" in capsys.readouterr().err
    assert main(["extract", str(pictures), *output, "--weights", "none"]) == 0
    assert "random weights (--weights none)" in capsys.readouterr().err
    assert main(["extract", str(pictures), *output, "--frames", "2", "--on-error", "nan"]) == 2
    assert "--frames 2 is asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "window", "source"),
    [
        ("--window lung photos", ["lung"], "photos"),
        ("--window 40 400 photos", ["40,400"], "photos"),
        ("--window -600 1.5e3 photos", ["-600,1.5e3"], "photos"),
        ("--window 40,400 photos", ["40,400"], "photos"),
        ("--window=bone photos", ["bone"], "photos"),
        ("photos --window full", ["full"], "photos"),
        ("photos --window 40 400", ["40,400"], "photos"),
        ("--window 40 photos", ["40"], "photos"),
        ("-- --window", None, "--window"),
    ],
)
def test_a_window_is_one_name_or_two_numbers(words, window, source):
    command = with_joined_window(["extract", "--check", *words.split()])
    arguments = _parser().parse_args(command)
    assert arguments.window == window
    assert arguments.source == source


@pytest.mark.parametrize("words", ["photos --window", "photos --window --quiet"])
def test_a_window_without_a_value_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit):
        main(["extract", "--check", *words.split()])
    assert "argument --window: expected at least one argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (".", ["--root", "."], "--root has no effect: '.' is no table"),
        ("-", ["--root", "."], "--root has no effect: '-' is no table"),
        ("t.csv", ["--follow-links"], "--follow-links has no effect: 't.csv' is no folder"),
        (".", ["--storage-options", "{}"], "--storage-options has no effect: '.' is a local"),
    ],
)
def test_options_without_an_effect_are_refused(
    source, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("photo\na.jpg\n")
    assert main(["extract", source, "--check", *options]) == 2
    assert message in capsys.readouterr().err
