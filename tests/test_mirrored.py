"""Pictures and their mirror images as one: against all pairs, with duplicates, and for every measure."""

import json

import numpy as np
import pytest
from commands import status

import geomem
from geomem.errors import InputError
from geomem.generation import Samples
from geomem.memorization import near_copies
from geomem.memorization.mirrored import distinct, nearest_points

SHAPE = (2, 3, 4)


def pictures(seed, n):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


TRAIN, HELDOUT, SAMPLES = pictures(1, 30), pictures(2, 40), pictures(3, 25)
COPIES = np.concatenate([TRAIN] * 2)[:50] + np.float32(0.01) * pictures(4, 50)
MIRRORED = COPIES[..., ::-1].copy()


def rows(points):
    return points.reshape(len(points), -1)


def test_nearest_pairs_are_those_of_all_distances():
    samples = np.concatenate([SAMPLES, MIRRORED[:5], COPIES[:5]])
    both = [np.linalg.norm(rows(x.astype(float))[:, None] - rows(TRAIN.astype(float)), axis=2)
            for x in (samples, samples[..., ::-1])]
    expected = np.minimum(*both)
    distances, indices = nearest_points(rows(samples), rows(TRAIN), 4, SHAPE)
    assert indices.tolist() == np.argsort(expected, axis=1)[:, :4].tolist()
    assert distances == pytest.approx(np.sort(expected, axis=1)[:, :4], rel=1e-6)


def test_points_and_their_mirror_images_are_duplicates():
    points = np.concatenate([TRAIN[:4], TRAIN[2:3], TRAIN[1:2, ..., ::-1], TRAIN[4:6], MIRRORED[4:5]])
    found = distinct(points, 1.0, SHAPE)
    assert found.index.tolist() == [0, 1, 2, 3, 6, 7]
    assert found.group.tolist() == [0, 1, 2, 3, 2, 1, 4, 5, 4]
    assert found.merged == 3
    plain = distinct(points, 1.0, None)
    assert plain.merged == 1


def test_mirrored_copies_are_copies():
    assert geomem.memorization_rate(MIRRORED, TRAIN).rate == 0
    found = geomem.memorization_rate(MIRRORED, TRAIN, mirrored=True)
    assert found.rate == 1
    assert found.mirrored
    assert found.nearest.tolist() == (np.arange(50) % 30).tolist()
    augmented = np.concatenate([TRAIN, TRAIN[..., ::-1]])  # else no sample is nearer to one of a pair than to the other
    assert geomem.memorization_rate(MIRRORED, augmented, mirrored=True).rate == 1
    assert geomem.memorization_rate(HELDOUT, TRAIN, mirrored=True).rate == 0


def test_mirrored_copies_lean_and_are_near_copies():
    assert geomem.leaning(MIRRORED, TRAIN, HELDOUT).p_value > 0.05
    assert geomem.leaning(MIRRORED, TRAIN, HELDOUT, mirrored=True).share > 0.99
    assert near_copies(MIRRORED, TRAIN, HELDOUT, mirrored=True).count == 50
    leaked = np.concatenate([HELDOUT, TRAIN[:5, ..., ::-1]])
    assert geomem.leaning(SAMPLES, TRAIN, leaked, mirrored=True).leaked == 5


def test_only_pictures_have_mirror_images():
    with pytest.raises(InputError, match="no mirror image"):
        geomem.memorization_rate(rows(SAMPLES), rows(TRAIN), mirrored=True)


def test_command_looks_for_mirror_images_where_asked_and_where_the_run_was_trained_on_them(tmp_path, capsys):
    data, samples = tmp_path / "data.npz", tmp_path / "samples.npz"
    np.savez(data, train=TRAIN, heldout=HELDOUT)
    for about, options, rate in (({}, [], 0.0), ({}, ["--mirrored"], 1.0), ({"flip": True}, [], 1.0)):
        Samples(MIRRORED, about).save(samples)
        assert status("memorization", samples, "--data", data, "--json", *options) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["trajectory"]["rate"] == rate
        assert found["trajectory"]["mirrored"] == (rate == 1)
