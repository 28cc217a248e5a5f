"""The manifest against the frameworks that published what it lists, and against our own counts."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
import yaml
from timm.models import get_pretrained_cfg
from torchvision.models import get_model, get_model_weights, list_models

from converters.errors import InputError
from converters.families.known import FAMILIES
from converters.families.manifest import (
    MANIFEST,
    Published,
    find,
    manifest,
    named_file,
    nearest,
    network_like,
    timm_default,
)
from converters.families.options import SourceOptions
from converters.families.source import BICUBIC, BILINEAR, Decision, EvalTransform, Source
from converters.families.vissl import FAMILY as VISSL
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from regnet.config import IMAGENET_MEAN, IMAGENET_STD, RegNetConfig
from regnet.design_space import NETWORKS, complexity
from regnet.image_processor import RegNetImageProcessor
from tests.oracles.pytorchcv import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]

GROUP_KEYS = {
    "publisher": str,
    "framework": str,
    "transform": dict,
    "licence": str,
    "classes": int,
    "channel_order": str,
    "url": str,
    "measured_at": int,
    "crop_pct": float,
    "padding": str,
    "checkpoints": list,
}
ROW_KEYS = {
    "name": str,
    "file": str,
    "architecture": str,
    "parameters": int,
    "top1": float,
    "top5": float,
    "sha256": str,
    "sha1": str,
    "default": bool,
    "origin": str,
}
LICENCES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "seer-license"}
UNTRAINED = {"regnety_040_sgn", "regnetz_005", "regnetz_b16_evos"}
"""timm has no weights of them."""


def by_publisher(publisher: str) -> dict[str, Published]:
    return {p.name: p for p in manifest() if p.publisher == publisher}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return tomllib.loads(MANIFEST.read_text(encoding="utf-8"))


def test_the_file_keeps_to_its_schema(content: dict[str, Any]) -> None:
    assert content.keys() == {"schema", "architectures", "group", "untrained"}
    assert content["schema"] == 1
    for group in (*content["group"], *content["untrained"]):
        assert {key: type(value) for key, value in group.items()}.items() <= GROUP_KEYS.items()
        assert {"publisher", "framework", "transform", "checkpoints"} <= group.keys()
        stated = group["transform"].keys() - {"squash", "mean", "std"}
        assert stated == {"resize", "crop", "interpolation"}
        assert ("crop_pct" in group) == (group["publisher"] == "timm")
        assert group["framework"] in FAMILIES
        assert group.get("licence", "mit") in LICENCES
        assert group.get("channel_order", "bgr") == "bgr"
        assert re.fullmatch(r"https://[\w./-]+/", group.get("url", "https://a/"))
        for row in group["checkpoints"]:
            assert {key: type(value) for key, value in row.items()}.items() <= ROW_KEYS.items()
            assert ("file" in row) == ("url" in group)


def test_checkpoints_points_to_the_file_of_the_package() -> None:
    assert (ROOT / "checkpoints" / "manifest.toml").samefile(MANIFEST)


def test_every_name_is_unique_even_without_its_publisher() -> None:
    names = [name.casefold() for p in manifest() for name in (p.name, p.full_name)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("published", manifest(), ids=lambda p: p.full_name)
def test_an_entry_agrees_with_itself(published: Published) -> None:
    found = (published.name.upper(), published.full_name.lower(), published.full_name)
    assert [find(name) for name in found] == [published] * 3
    assert 1 <= published.transform.crop <= published.transform.resize
    if published.config and published.classes is not None:
        assert complexity(published.config).parameters == published.parameters
    else:
        assert published.parameters is None
    if published.top5:
        assert published.top1 or published.publisher == "pytorchcv"  # which states no other
        assert 50 < (published.top1 or 51) < published.top5 < 100
    in_name = re.search(r"-([0-9a-f]{8})\.pth$", published.url or "")
    if published.publisher == "keras":  # whose code says them
        assert re.fullmatch("[0-9a-f]{64}", published.sha256 or "")
        assert published.digest is None
    else:
        assert published.sha256 == (in_name and in_name[1])


def test_an_architecture_of_its_own_is_none_of_the_24_and_in_use(content: dict[str, Any]) -> None:
    assert not content["architectures"].keys() & NETWORKS.keys()
    assert content["architectures"].keys() <= {p.architecture for p in manifest()} | UNTRAINED


def test_pycls_published_each_of_the_24_networks() -> None:
    listed = by_publisher("pycls")
    assert {name: p.architecture for name, p in listed.items()} == {n: n for n in NETWORKS}
    for name, published in listed.items():
        assert re.fullmatch(rf"https://.*/\d{{9}}/{name}_dds_8gpu\.pyth", published.url or "")


def _torchvision_weights() -> Iterator[tuple[str, Any]]:
    for builder in list_models(include="regnet_*"):
        for member in get_model_weights(builder):
            yield f"{builder}.{member.name}", member.value


def test_torchvision_lists_the_same_weights() -> None:
    expected = {}
    for name, weights in _torchvision_weights():
        transform = weights.transforms()
        accuracy = weights.meta["_metrics"]["ImageNet-1K"]
        expected[name] = (
            weights.url,
            weights.meta["num_params"],
            (accuracy["acc@1"], accuracy["acc@5"]),
            (transform.resize_size[0], transform.crop_size[0], transform.interpolation.value),
            "cc-by-nc-4.0" if "license" in weights.meta else "bsd-3-clause",
        )
    names = {BILINEAR: "bilinear", BICUBIC: "bicubic"}
    assert expected == {
        name: (
            p.url,
            p.parameters,
            (p.top1, p.top5),
            (p.transform.resize, p.transform.crop, names[p.transform.resample]),
            p.licence,
        )
        for name, p in by_publisher("torchvision").items()
    }


def test_timm_lists_the_same_weights() -> None:
    tags = timm.list_models("regnet*", pretrained=True)
    expected = {}
    origins = {}
    for tag in tags:
        cfg = get_pretrained_cfg(tag)
        size = cfg.input_size[-1]
        transform = EvalTransform(int(size / cfg.crop_pct), size, BICUBIC, cfg.mean, cfg.std)
        assert cfg.interpolation == "bicubic"
        assert cfg.hf_hub_id == f"timm/{tag}"
        is_default = get_pretrained_cfg(tag.split(".")[0]).tag == cfg.tag
        expected[tag] = (transform, cfg.crop_pct, is_default, cfg.num_classes, cfg.license)
        origin = str(cfg.url or "").rpartition("/")[2]
        if re.fullmatch(r"regnety_\w+-[0-9a-f]{8}\.pth", origin):
            origins[tag] = (origin, origin[-12:-4])
    assert expected == {
        name: (p.transform, p.crop_pct, p.default, p.classes, p.licence)
        for name, p in by_publisher("timm").items()
    }
    listed = by_publisher("timm").values()
    assert origins == {p.name: (p.file_name, p.digest) for p in listed if p.file_name}


@pytest.mark.parametrize("model", timm.list_models("regnet*"))
def test_timm_means_a_tag_by_a_bare_name(model: str) -> None:
    found = timm_default(model)
    stated = get_pretrained_cfg(model)
    if model in UNTRAINED:  # whose evaluation is told, and which cannot be had
        assert found
        assert find(model) is None
        assert not stated.has_weights
        told = found.transform
        assert (told.mean[0], told.std[0]) == (stated.mean[0], stated.std[0])
        assert (told.crop, found.crop_pct) == (stated.input_size[1], stated.crop_pct)
        assert told.filter_name == stated.interpolation
        return
    tag = stated.tag
    assert found == find(f"timm/{model}.{tag}") == timm_default(f"{model}.{tag}")


@pytest.mark.parametrize(
    "name", sorted({p.name.split(".")[0] for p in manifest() if p.publisher == "timm"})
)
def test_timm_builds_the_listed_architecture(name: str) -> None:
    published = next(p for p in manifest() if p.name.startswith(f"{name}."))
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=published.classes)
    assert sum(p.numel() for p in model.parameters()) == published.parameters
    widths = [stage["num_chs"] for stage in model.feature_info[1:]]  # the first is the stem
    config = published.config
    assert config
    *first, last = widths  # which ByobNet says behind its last convolution
    assert [*first, config.hidden_sizes[-1]] == config.hidden_sizes
    assert last in {config.hidden_sizes[-1], config.feature_size}


def test_mmpretrain_lists_the_same_weights() -> None:
    pytest.importorskip("mmpretrain")
    spec = find_spec("mmpretrain")
    assert spec
    assert spec.origin
    metafile = Path(spec.origin).parent / ".mim" / "configs" / "regnet" / "metafile.yml"
    expected = {}
    for model in yaml.safe_load(metafile.read_text())["Models"]:
        metrics = model["Results"][0]["Metrics"]
        accuracy = metrics["Top 1 Accuracy"], metrics["Top 5 Accuracy"]
        expected[model["Name"]] = (model["Weights"], accuracy)
    listed = by_publisher("mmpretrain")
    assert expected == {name: (p.url, (p.top1, p.top5)) for name, p in listed.items()}


def test_pytorchcv_lists_the_same_weights() -> None:
    pytest.importorskip("pytorchcv")
    from pytorchcv.models.common.model_store import get_model_metainfo

    listed = by_publisher("pytorchcv")
    assert list(listed) == list(map(name_of, NETWORKS))
    for name, published in listed.items():
        parameters, error, sha1, tag = get_model_metainfo(name)
        assert (published.sha1, published.parameters) == (sha1, int(parameters))
        assert published.top5 == 100 - int(error) / 100
        file = f"{name}-{error}-{sha1[:8]}.pth"
        assert published.file_name == file
        assert (
            published.url == f"https://github.com/osmr/imgclsmob/releases/download/{tag}/{file}.zip"
        )


@pytest.mark.parametrize(
    ("mistaken", "meant"),
    [
        ("RegNetY-4.0", "RegNetY-4.0GF"),
        ("regnety_040.pycls", "regnety_040.pycls_in1k"),
        ("facebook/regnet-y-40", "facebook/regnet-y-040"),
        ("RegNetY-4.0GF.pyth", "RegNetY-4.0GF"),
    ],
)
def test_a_mistaken_name_brings_the_one_that_was_meant(mistaken: str, meant: str) -> None:
    assert find(mistaken) is None
    assert meant in nearest(mistaken)


@pytest.mark.parametrize("path", ["model.pyth", "out", "checkpoint.torch", "resnet50"])
def test_a_path_brings_no_name(path: str) -> None:
    assert find(path) is None
    assert nearest(path) == []


def recognised(config: RegNetConfig) -> Source:
    """What a reader made of a file."""
    transform = EvalTransform(256, 224, BILINEAR)
    decisions = (
        Decision("channel order", "RGB, stem kept", "VISSL's own"),
        Decision("evaluation transform", transform.in_words, "VISSL's default"),
    )
    return Source(
        *("vissl", VISSL.keymap, {}, config, True, "rgb", transform),
        decisions=decisions,
    )


@pytest.mark.parametrize(
    ("name", "asked", "order", "topics"),
    [
        ("seer_32Gf_in1k", None, "rgb", {"evaluation transform", "licence"}),
        ("supervised_64Gf", None, "bgr", {"evaluation transform", "channel order"}),
        ("supervised_64Gf", "rgb", "rgb", {"evaluation transform"}),
    ],
)
def test_what_is_known_of_an_entry_replaces_the_framework_s_defaults(
    name: str, asked: Any, order: str, topics: set[str]
) -> None:
    published = find(name)
    assert published
    assert published.config
    source = published.describe(recognised(published.config), asked)
    assert (source.transform, source.licence) == (published.transform, published.licence)
    assert source.preprocessor_fields()["size"] == published.transform.crop
    assert source.channel_order == order
    stated = {d.topic for d in source.decisions if d.reason.endswith(f"entry vissl/{name}")}
    assert stated == topics
    assert {d.topic for d in source.decisions} >= {"channel order", "evaluation transform"}


def save_processor(folder: Path, size: int) -> dict[str, Any]:
    """A preprocessor_config.json as transformers' conversion script leaves it beside weights."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": size},
        crop_pct=224 / 256,
        resample=3,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    processor.save_pretrained(folder)
    saved: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_text())
    return saved


@pytest.mark.parametrize(
    "published", [p for p in manifest() if p.publisher == "facebook"], ids=lambda p: p.name
)
def test_a_repository_has_one_preprocessor_by_name_and_as_a_folder(
    published: Published, tmp_path: Path
) -> None:
    keys = save_processor(tmp_path, 384 if "seer" in published.name else 224)
    processor = RegNetImageProcessor.from_dict(keys)
    assert published.config
    folder = replace(
        recognised(published.config),
        transform=EvalTransform.of(processor),
        processor=processor.to_dict(),
    )

    source = published.describe(folder, None)

    assert source.preprocessor_fields() == folder.preprocessor_fields()
    assert source.transform == published.transform == EvalTransform.of(processor)
    assert source.licence == published.licence


FILES = [p for p in manifest() if p.file_name]


@pytest.mark.parametrize("published", FILES, ids=lambda p: p.full_name)
def test_a_published_file_is_known_by_its_name_if_nothing_speaks_against_it(
    published: Published,
) -> None:
    name = published.file_name
    assert name
    config = published.config or NETWORKS["RegNetX-200MF"].config()
    classes = published.classes
    framework = published.framework
    source = replace(recognised(config), family=framework, has_classifier=classes != 0)
    unique = sum(p.file_name == name for p in FILES) == 1
    known = unique and published.config is not None

    def found(source: Source, *, words: bool, name: str = name) -> Source | None:
        return named_file(name, source, None, has_words=words)

    silent = found(source, words=False)
    assert silent == (published.describe(source, None, reason_of(silent)) if known else None)
    spoken = found(source, words=True)
    assert spoken == (silent if published.digest else None)
    others = RegNetConfig.from_dict(config.to_dict(), num_labels=7)
    assert found(replace(source, config=others, has_classifier=True), words=False) is None or (
        published.classes is None
    )
    assert found(source, words=False, name=f"my-{name}") is None


def reason_of(source: Source | None) -> str:
    """Why a source is what it is."""
    return source.decisions[-1].reason if source else ""


def test_the_bytes_decide_whether_it_is_the_file_that_its_name_says(tmp_path: Path) -> None:
    published = find("torchvision/regnet_x_400mf.IMAGENET1K_V1")
    assert published
    assert published.url
    path = tmp_path / published.url.rpartition("/")[2]
    torch.save(get_model("regnet_x_400mf").state_dict(), path)
    with inspected(path, SourceOptions()) as (_, inspection):
        source = inspection.source
    assert (source.transform, source.licence) == (published.transform, "bsd-3-clause")
    (said,) = [d for d in source.decisions if d.topic == "evaluation transform"]
    assert "sha256 decides" in said.reason

    with pytest.raises(InputError, match=r"sha256 .* where that of .* begins with adf1edd5"):
        convert(path, tmp_path / "out", formats=(), verify=False)
    assert not (tmp_path / "out").exists()


def test_a_file_with_another_network_than_its_name_says_is_refused() -> None:
    published = find("RegNetY-4.0GF")
    assert published
    with pytest.raises(InputError, match=r"^pycls/RegNetY-4\.0GF: its file has depths \[2, 5, 14"):
        published.describe(recognised(NETWORKS["RegNetX-4.0GF"].config(layer_type="y")), None)


@pytest.mark.parametrize("published", manifest(), ids=lambda published: published.full_name)
def test_a_published_network_is_known_by_its_architecture(published: Published) -> None:
    if published.config is not None:
        assert network_like(published.config) == published.architecture
