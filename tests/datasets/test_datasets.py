"""Laws of the data sets: what is read is what the source says, lazily, and downloads are checked."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import zipfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata
from PIL import Image
from spatialdata.transformations import get_transformation

from h2e import datasets
from h2e.datasets import _fetch, _her2st
from h2e.datasets._cohort import pyramid

pytestmark = [
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning"),  # anndata's, on writing
    pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning"),  # ome-zarr's, at import
]

SIZE = (310, 301)
PITCH = 40


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch, request):
    """Give each test a cache of its own, and no data; those on real data keep theirs."""
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.setenv("H2E_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("H2E_DATA", raising=False)


def write_section(
    folder: Path, section: str, *, image: str | None = None, size: tuple[int, int] = SIZE
) -> pd.DataFrame:
    """Write a section laid out as at the source: 12 spots, the first without counts, the last not selected."""
    rng = np.random.default_rng(ord(section[0]) + int(section[1]))
    for place in ("data/ST-cnts", "data/ST-spotfiles", f"data/ST-imgs/{section[0]}/{section}", "app/www/imgs"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    rows, columns = (axis.ravel() + 3 for axis in np.mgrid[:3, :4])
    spots = pd.DataFrame({"x": columns, "y": rows, "new_x": columns, "new_y": rows})
    spots["pixel_x"], spots["pixel_y"] = 60.0 + PITCH * (columns - 3), 80.0 + PITCH * (rows - 3)
    spots["selected"] = [1] * 11 + [0]
    spots.to_csv(folder / f"data/ST-spotfiles/{section}_selection.tsv", sep="\t", index=False)
    genes = ["SHARED", "TWICE", f"ONLY_{section}", "TWICE"]
    names = [f"{x}x{y}" for x, y in zip(columns, rows, strict=True)]
    counts = pd.DataFrame(rng.integers(0, 300, (12, 4)), index=names, columns=genes)
    counts = counts.iloc[1:].sample(frac=1, random_state=0)  # another order than that of the spot file
    with gzip.open(folder / f"data/ST-cnts/{section}.tsv.gz", "wt") as file:
        counts.to_csv(file, sep="\t")
    pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / (image or f"data/ST-imgs/{section[0]}/{section}/abc_HE.jpg"))
    return counts


def write_proportions(folder: Path, proportions: dict[str, pd.DataFrame]) -> None:
    """Write the archive of the proportions of the major cell types."""
    (folder / "res/ST-deconv/props").mkdir(parents=True)
    with zipfile.ZipFile(folder / "res/ST-deconv/props/major.zip", "w") as archive:
        for section, frame in proportions.items():
            archive.writestr(f"major/{section}-proportion.tsv", frame.to_csv(sep="\t"))


@pytest.fixture
def folder(tmp_path):
    """Write two sections of two donors, with proportions for one of them."""
    path = tmp_path / "her2st"
    write_section(path, "B2")
    counts = write_section(path, "G1")
    share = pd.DataFrame({"T/NK ": 0.25, "Cancer Epithelial": 0.75}, index=counts.index[:-1])
    write_proportions(path, {"G1": share})
    return path


# the toy cohort


def test_toy_slides_have_systems_of_their_own_and_lazy_pyramids(cohort):
    assert sorted(cohort.coordinate_systems) == sorted(cohort.shapes) == ["toy_A1", "toy_A2", "toy_B1", "toy_C1"]
    for name in cohort.shapes:
        image = cohort[f"{name}_image"]
        assert list(get_transformation(image, get_all=True)) == [name]
        levels = [image[f"scale{i}"]["image"] for i in range(3)]
        assert [a.shape[1] for a in levels] == [levels[0].shape[1] // 2**i for i in range(3)]
        assert levels[0].dtype == np.uint8
        assert max(levels[0].data.chunksize[1:]) < levels[0].shape[1]
        assert image["scale0"].coords["c"].to_numpy().tolist() == ["r", "g", "b"]


def test_toy_cohort_is_the_same_for_the_same_seed_only():
    first, again, other = (datasets.toy_cohort(n_slides=2, n_donors=2, side=6, seed=seed) for seed in (3, 3, 4))
    for sdata, same in ((again, True), (other, False)):
        pixels = [np.asarray(s["toy_A1_image"]["scale0"]["image"].data) for s in (first, sdata)]
        assert np.array_equal(*pixels) is same
        counts = [s["table"].X.toarray() for s in (first, sdata)]
        assert (counts[0].shape == counts[1].shape and np.array_equal(*counts)) is same


def test_toy_slides_do_not_depend_on_how_many_there_are():
    few, many = (datasets.toy_cohort(n_slides=n, n_donors=2, side=6) for n in (2, 3))
    assert np.array_equal(*(np.asarray(s["toy_A1_image"]["scale1"]["image"].data) for s in (few, many)))


def test_toy_background_spots_have_few_counts_and_light_pixels(cohort):
    table = cohort["table"]
    total = np.asarray(table.X.sum(axis=1)).ravel()
    on_tissue = table.obs["on_tissue"].to_numpy()
    assert (table.obs.loc[~on_tissue, "region"].value_counts() == 4).all()
    assert total[~on_tissue].max() < 0.2 * total[on_tissue].min()


def test_toy_planted_genes_follow_the_darkness_of_tissue_where_the_spots_truly_are(cohort):
    def best_correlation(*, undo_shift: bool) -> np.ndarray:
        table = cohort["table"][cohort["table"].obs["region"] == "toy_A2"]
        table = table[table.obs["on_tissue"]]
        circles = cohort["toy_A2"].loc[table.obs["instance_id"]]
        shift = cohort["table"].uns["toy"]["shift_px"]["toy_A2"] * undo_shift
        pixels = np.asarray(cohort["toy_A2_image"]["scale0"]["image"].data).mean(axis=0)
        at = [(int(p.x - shift[0]), int(p.y - shift[1])) for p in circles.geometry]
        dark = [np.mean(pixels[y - 8 : y + 8, x - 8 : x + 8] < 120) for x, y in at]
        expression = np.log1p(table.X.toarray())
        return np.abs([np.corrcoef(dark, gene)[0, 1] for gene in expression.T])

    found, shifted = best_correlation(undo_shift=True), best_correlation(undo_shift=False)
    planted = cohort["table"].var["planted"].to_numpy()
    assert np.sort(found[planted])[-12:].mean() > 0.5
    assert np.sort(shifted[planted])[-12:].mean() < np.sort(found[planted])[-12:].mean()
    assert found[~planted].mean() < 0.5 * found[planted].mean()


def test_toy_slides_differ_in_stain(cohort):
    colours = []
    for name in cohort.shapes:
        pixels = np.asarray(cohort[f"{name}_image"]["scale0"]["image"].data).reshape(3, -1)
        colours.append(pixels[:, pixels.mean(axis=0) < 200].mean(axis=1))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 5


def test_a_change_to_a_copy_of_the_cohort_does_not_reach_the_source(cohort, cohort_source):
    from spatialdata.transformations import Translation, set_transformation

    for key in ("toy_A1", "toy_A1_image"):
        set_transformation(cohort[key], Translation([1, 2], axes=("x", "y")), "toy_A1")
        assert type(get_transformation(cohort_source[key], "toy_A1")).__name__ == "Identity"
    cohort["table"].obs["region"] = "x"
    assert cohort_source["table"].obs["region"].iloc[0] == "toy_A1"


def test_toy_cohort_survives_writing_and_reading(cohort, tmp_path):
    cohort.write(tmp_path / "cohort.zarr")
    check_same(spatialdata.read_zarr(tmp_path / "cohort.zarr"), cohort)


def check_same(read: spatialdata.SpatialData, written: spatialdata.SpatialData) -> None:
    """Compare what was read with what was written, all pixels included."""
    assert sorted(read.coordinate_systems) == sorted(written.coordinate_systems)
    for key, image in written.images.items():
        for level in image.children:
            pixels = (np.asarray(s[key][level]["image"].data) for s in (read, written))
            np.testing.assert_array_equal(*pixels)
    for key, circles in written.shapes.items():
        assert read[key].equals(circles)
    table, before = read["table"], written["table"]
    assert (table.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(table.obs, before.obs, check_dtype=False)
    assert table.obsm.keys() == before.obsm.keys()
    for key, frame in before.obsm.items():
        pd.testing.assert_frame_equal(table.obsm[key], frame)


@pytest.mark.parametrize("wrong", [{"n_slides": 2, "n_donors": 3}, {"n_donors": 0}, {"side": 2}], ids=str)
def test_impossible_toy_cohorts_are_refused(wrong):
    with pytest.raises(ValueError, match="toy_cohort needs"):
        datasets.toy_cohort(**wrong)


# pyramids


def test_a_level_is_the_rounded_mean_of_exact_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1037, 61), dtype=np.uint8)
    levels = pyramid(pixels, 3)
    assert [level.shape for level in levels] == [(3, 1036, 60), (3, 518, 30), (3, 259, 15)]
    for fine, coarse in pairwise(levels):
        means = fine.reshape(3, coarse.shape[1], 2, coarse.shape[2], 2).mean(axis=(2, 4))
        np.testing.assert_array_equal(coarse, np.floor(means + 0.5))


# her2st


def test_every_selected_spot_with_counts_is_read_with_its_own_counts_and_place(folder):
    sdata = datasets.her2st(folder, progress=False)
    table = sdata["table"]
    assert sorted(sdata.images) == ["B2_image", "G1_image"]
    assert table.n_obs == 20  # 12 spots a section, less one without counts and one not selected
    assert table.obs_names.is_unique
    assert dict(table.obs.groupby("region", observed=True)["donor"].first()) == {"B2": "B", "G1": "G"}
    for section in ("B2", "G1"):
        with gzip.open(folder / f"data/ST-cnts/{section}.tsv.gz", "rt") as file:
            lines = [line.rstrip("\n").split("\t") for line in file]
        truth = {line[0]: [int(line[1]), int(line[2]) + int(line[4]), int(line[3])] for line in lines[1:]}
        mine = table[table.obs["region"] == section]
        for name, row, instance, y, x in zip(
            mine.obs_names,
            mine[:, ["SHARED", "TWICE", f"ONLY_{section}"]].X.toarray(),
            mine.obs["instance_id"],
            mine.obs["array_row"],
            mine.obs["array_col"],
            strict=True,
        ):
            assert name == f"{section}_{x}x{y}"
            assert row.tolist() == truth[f"{x}x{y}"]
            point = sdata[section].geometry[instance]
            assert (point.x, point.y) == (60 + PITCH * (x - 3), 80 + PITCH * (y - 3))
        other = "ONLY_B2" if section == "G1" else "ONLY_G1"
        assert mine[:, other].X.nnz == 0
        np.testing.assert_allclose(mine.obs["um_per_px"], 200 / PITCH)
        np.testing.assert_allclose(sdata[section]["radius"], PITCH / 4)


def test_proportions_are_joined_by_spot_and_missing_ones_are_nan(folder):
    table = datasets.her2st(folder, progress=False)["table"]
    frame = table.obsm["major"]
    assert frame.columns.tolist() == ["T-NK", "Cancer Epithelial"]
    assert frame.index.equals(table.obs_names)
    assert frame[table.obs["region"] == "B2"].isna().all(axis=None)
    known = frame[table.obs["region"] == "G1"].dropna()
    assert len(known) >= 9
    np.testing.assert_allclose(known.sum(axis=1), 1)


def test_read_sections_survive_writing_and_reading(folder, tmp_path):
    sdata = datasets.her2st(folder, progress=False)
    sdata.write(tmp_path / "cohort.zarr")
    check_same(spatialdata.read_zarr(tmp_path / "cohort.zarr"), sdata)


def test_pixels_are_those_of_the_picture_and_are_decoded_once(folder, monkeypatch):
    sdata = datasets.her2st(folder, progress=False)
    truth = np.moveaxis(np.asarray(Image.open(folder / "data/ST-imgs/B/B2/abc_HE.jpg")), -1, 0)
    read = np.asarray(sdata["B2_image"]["scale0"]["image"].data)
    np.testing.assert_array_equal(read, truth[:, :288, :304])  # multiples of 16
    assert len(sdata["B2_image"].children) == 5
    monkeypatch.setattr(_fetch, "read_picture", None)  # a second conversion would fail
    again = datasets.her2st(folder, progress=False)
    assert np.array_equal(np.asarray(again["B2_image"]["scale0"]["image"].data), read)


def test_a_changed_picture_is_converted_anew(folder):
    datasets.her2st(folder, sections=["B2"], progress=False)
    Image.new("RGB", SIZE, (9, 9, 9)).save(folder / "data/ST-imgs/B/B2/abc_HE.jpg", quality=100)
    sdata = datasets.her2st(folder, sections=["B2"], progress=False)
    assert np.ptp(np.asarray(sdata["B2_image"]["scale0"]["image"].data)) == 0


def test_an_interrupted_conversion_leaves_nothing_that_could_be_taken_for_an_image(folder, monkeypatch, tmp_path):
    def fail(_sdata: object, store: Path) -> None:
        store.mkdir()
        (store / "half").write_text("an image")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(spatialdata.SpatialData, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            datasets.her2st(folder, progress=False)
    assert list((tmp_path / "cache/pyramids").iterdir()) == []
    assert len(datasets.her2st(folder, progress=False).images) == 2


def test_a_reduced_image_gets_reduced_coordinates_and_the_full_one_is_preferred(tmp_path):
    write_section(tmp_path, "A1", image="app/www/imgs/A1_HE_image_dark.png", size=(200, 214))
    reduced = datasets.her2st(tmp_path, progress=False)
    factor = 200 / 6954
    assert reduced["A1"].geometry.x.min() == pytest.approx(60 * factor)
    assert reduced["table"].obs["um_per_px"].iloc[0] == pytest.approx(200 / (PITCH * factor))
    write_section(tmp_path, "A1")
    full = datasets.her2st(tmp_path, progress=False)
    assert full["A1"].geometry.x.min() == 60
    assert full["A1_image"]["scale0"]["image"].shape[1:] == (288, 304)


def test_labels_of_the_pathologist_are_joined_by_the_nearest_place(folder):
    (folder / "data/ST-pat/lbl").mkdir(parents=True)
    labels = pd.DataFrame({"x": [4.02, 4.98], "y": [2.99, 4.01], "label": ["fat", "tumour"]})
    labels.to_csv(folder / "data/ST-pat/lbl/B2_labeled_coordinates.tsv", sep="\t", index=False)
    obs = datasets.her2st(folder, progress=False)["table"].obs
    assert obs["pathologist"].dropna().to_dict() == {"B2_4x3": "fat", "B2_5x4": "tumour"}


def test_h2e_data_is_read_where_no_folder_is_given(folder, monkeypatch):
    monkeypatch.setenv("H2E_DATA", str(folder.parent))
    assert sorted(datasets.her2st(sections="G1", progress=False).images) == ["G1_image"]


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(ValueError, match=r"\['B9'\] were asked for; .* has \['B2', 'G1'\]"):
        datasets.her2st(folder, sections=["B9"], progress=False)
    (folder / "data/ST-imgs/B/B2/abc_HE.jpg").unlink()
    assert sorted(datasets.her2st(folder, progress=False).shapes) == ["G1"]
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        datasets.her2st(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no complete section: each needs"):
        datasets.her2st(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"no metaData\.csv"):
        datasets.mob(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"test_data\.h5ad"):
        datasets.visium_mini(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"\['H1'\] cannot be downloaded, \['A1', 'B4'"):
        datasets.her2st(sections=["H1"])


# downloads, from a server on this machine


@pytest.fixture
def server(folder, monkeypatch):
    """Serve the folder as if it were the source; ``asked`` collects the paths that were asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    asked: list[str] = []
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    registry = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    monkeypatch.setattr(_her2st, "URL", f"http://127.0.0.1:{served.server_port}/")
    monkeypatch.setattr(_her2st, "read_registry", lambda _name: registry)
    yield asked
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_download_is_what_the_folder_holds_and_is_not_repeated(server, folder, capsys):
    downloaded = datasets.her2st()
    assert "her2st" in capsys.readouterr().err  # the progress bar
    assert len(server) == len(set(server)) == 7
    check_same(downloaded, datasets.her2st(folder, progress=False))
    datasets.her2st(progress=False)
    assert len(server) == 7
    assert "file" not in capsys.readouterr().err


def test_only_the_sections_asked_for_are_downloaded(server):
    assert sorted(datasets.her2st(sections=["G1"], progress=False).shapes) == ["G1"]
    assert not any("B2" in path for path in server)


@pytest.mark.parametrize("what", ["data/ST-cnts/G1.tsv.gz", "res/ST-deconv/props/major.zip"])
def test_a_file_that_was_changed_is_refused_and_not_kept(server, folder, tmp_path, what):
    original = (folder / what).read_bytes()
    (folder / what).write_bytes(original[:-1] + b"!")
    with pytest.raises(ValueError, match=r"is not the file that h2e knows.*pass their folder"):
        datasets.her2st(progress=False)
    assert not (tmp_path / "cache/her2st" / what).exists()
    (folder / what).write_bytes(original)  # the next call gets it right
    assert len(datasets.her2st(progress=False).shapes) == 2


def test_a_file_that_cannot_be_had_is_named_with_what_to_do(server, folder):
    (folder / "data/ST-spotfiles/B2_selection.tsv").unlink()
    with pytest.raises(OSError, match=r"B2_selection\.tsv cannot be downloaded.*Without a network, pass the folder"):
        datasets.her2st(progress=False)


def test_the_addresses_are_of_fixed_commits_and_every_file_has_a_checksum():
    from h2e.datasets import _mob, _visium_mini

    assert "85df7411b987a7dec3feff9718b869a7a82091ec" in _her2st.URL
    for module, n_files in ((_her2st, 22), (_mob, 14), (_visium_mini, 2)):
        assert module.URL.startswith("https://raw.githubusercontent.com/")
        registry = _fetch.read_registry(module.__name__.rpartition("._")[2])
        assert len(registry) == n_files
        assert all(len(checksum) == 64 and int(checksum, 16) for checksum in registry.values())


# real data


@pytest.mark.real_data
def test_real_sections_have_the_spots_of_the_study(tmp_path):
    sdata = datasets.her2st(sections=["A1", "C3"], progress=False)
    table = sdata["table"]
    assert table.obs["region"].value_counts().to_dict() == {"A1": 346, "C3": 180}
    for tier, n_types in {"major": 8, "minor": 22, "subset": 41}.items():
        assert table.obsm[tier].shape[1] == n_types
        np.testing.assert_allclose(table.obsm[tier].sum(axis=1), 1, atol=1e-5)
    um_per_px = table.obs.groupby("region", observed=True)["um_per_px"].first()
    assert um_per_px["A1"] == pytest.approx(3.2, rel=0.01)
    assert um_per_px["C3"] == pytest.approx(0.69, rel=0.01)
    sdata = sdata.filter_by_coordinate_system("A1")
    sdata.write(tmp_path / "a1.zarr")
    check_same(spatialdata.read_zarr(tmp_path / "a1.zarr"), sdata)


@pytest.mark.real_data
def test_real_bulbs_and_crop_have_the_spots_of_their_studies():
    table = datasets.mob(progress=False)["table"]
    assert table.obs["region"].value_counts().to_dict() == {"MOB1": 379, "MOB2": 407, "MOB3": 438, "MOB4": 403}
    assert table.obs.groupby("region", observed=True)["donor"].first().tolist() == ["1", "1", "2", "2"]
    assert {"Penk", "Pcp4"} & set(table.var_names)
    np.testing.assert_allclose(table.obs["um_per_px"], 4.42, rtol=0.002)
    crop = datasets.visium_mini(progress=False)
    assert crop["table"].shape == (49, 1999)
    assert crop["table"].obs["um_per_px"].iloc[0] == pytest.approx(100 / 137, rel=0.02)
