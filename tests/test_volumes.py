"""Volumes: NIfTI files against what nibabel wrote, arrays of five axes, and what is refused in one line."""

from __future__ import annotations

import gzip
from importlib.util import find_spec

import numpy as np
import pytest
from commands import refused, status

from geomem.data import load_data
from geomem.errors import InputError

RNG = np.random.default_rng(5)
VOLUMES = RNG.normal(size=(90, 1, 3, 4, 5)).astype(np.float32)
with_nibabel = pytest.mark.skipif(find_spec("nibabel") is None, reason="nibabel is not installed")


def save(path, values, kind=np.float32):
    """A NIfTI file of values (D, H, W), or (D, H, W, channels)."""
    import nibabel

    path.parent.mkdir(exist_ok=True, parents=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(kind), np.eye(4)), path)


@with_nibabel
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_folder_is_read_as_its_values(tmp_path, suffix):
    for k, volume in enumerate(VOLUMES[:6]):
        save(tmp_path / "v" / f"{k}{suffix}", volume[0])
    data = load_data(tmp_path / "v", heldout=VOLUMES[6:9])
    assert np.array_equal(data.train, VOLUMES[:6])
    assert data.files([2]) == [f"2{suffix}"]
    assert data.notes == ()


@with_nibabel
def test_channels_and_split(tmp_path):
    whole = RNG.integers(0, 100, (5, 3, 4, 5, 2))
    for k, volume in enumerate(whole):
        save(tmp_path / "v" / ("train" if k < 3 else "test") / f"{k}.nii.gz", volume, np.int16)
    data = load_data(tmp_path / "v")
    assert np.array_equal(data.train, np.moveaxis(whole[:3], 4, 1))
    assert np.array_equal(data.heldout, np.moveaxis(whole[3:], 4, 1))
    assert any("are taken as they are" in note for note in data.notes)


@with_nibabel
def test_the_headers_slope_and_intercept_count(tmp_path):
    values = RNG.integers(-100, 100, (3, 4, 5)).astype(np.int16)
    for k in range(2):
        save(tmp_path / "v" / f"{k}.nii", values)
        raw = bytearray((tmp_path / "v" / f"{k}.nii").read_bytes())
        raw[112:120] = np.array([0.5, -3.0], "<f4").tobytes()  # scl_slope and scl_inter of the form's definition
        (tmp_path / "v" / f"{k}.nii").write_bytes(raw)
    data = load_data(tmp_path / "v", heldout=VOLUMES[:3])
    np.testing.assert_allclose(data.train[0, 0], values * 0.5 - 3, rtol=1e-6)


@with_nibabel
def test_samples_and_zone_of_volumes(tmp_path, capsys):
    for k, volume in enumerate(VOLUMES):
        name = "train" if k < 40 else "test"
        save(tmp_path / name / f"{k}.nii.gz", volume[0])
    for k, volume in enumerate(np.concatenate([VOLUMES[:6], VOLUMES[80:86] + 1])):
        save(tmp_path / "samples" / f"{k}.nii.gz", volume[0])
    data = "--data", tmp_path / "train", "--heldout", tmp_path / "test"
    assert status("audit", tmp_path / "samples", *data, "--out", tmp_path / "audit") == 0
    assert "verdict: copies" in capsys.readouterr().out
    assert status("danger-zone", tmp_path / "train", *data[2:], "--sigmas", 6, "--quiet") == 0


@with_nibabel
def test_wrong_volumes_are_one_line(tmp_path):
    first = VOLUMES[0, 0]

    def says(name, message, content=None, **options):
        folder = tmp_path / name
        save(folder / "0.nii.gz", first)
        if content is None:
            save(folder / "1.nii.gz", **options)
        else:
            (folder / "1.nii.gz").write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            load_data(folder, heldout=VOLUMES[:3])
        assert "1.nii.gz" in str(error.value)
        assert "\n" not in str(error.value)

    whole = (tmp_path / "x" / "0.nii")
    save(whole, first)
    raw = whole.read_bytes()
    says("shape", r"has shape \(1, 3, 4, 4\), but 0.nii.gz .*resample all", values=first[..., :4])
    says("series", "a volume has three axes", values=np.zeros((3, 4, 5, 9)))
    says("nan", "holds NaN", values=first * np.nan)
    says("colour", "no intensities", values=np.zeros((3, 4, 5)), kind=np.complex64)
    says("short", "cannot be read as a NIfTI volume", content=gzip.compress(raw[:400]))
    says("noise", "cannot be read as a NIfTI volume", content=b"\x1f\x8b" + bytes(300))
    bomb = bytearray(raw[:352])
    bomb[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()  # dim of the form's definition: 10^14 bytes
    says("bomb", "memory|cannot be read", content=gzip.compress(bytes(bomb) + bytes(1 << 20)))


def test_without_nibabel_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(bytes(400)))
    monkeypatch.setattr("geomem.data.volumes.find_spec", lambda name: None)
    for path in (tmp_path, tmp_path / "v.nii.gz"):
        assert "pip install 'geomem[medical]'" in refused(capsys, "danger-zone", path)


def test_arrays_of_volumes_need_nothing_else(tmp_path, capsys):
    np.save(tmp_path / "volumes.npy", VOLUMES)
    np.save(tmp_path / "samples.npy", VOLUMES[:12])
    assert load_data(tmp_path / "volumes.npy").train.shape == (72, 1, 3, 4, 5)
    assert status("audit", tmp_path / "samples.npy", "--data", tmp_path / "volumes.npy", "--out", tmp_path / "a") == 0
    assert "verdict: copies" in capsys.readouterr().out
    assert status("memorization", tmp_path / "samples.npy", "--data", tmp_path / "volumes.npy", "--quiet") == 0
