"""The catalogue against NETWORKS.md's tables, row by row and in both directions."""

from __future__ import annotations

import json
import time

from medaug.models.catalogue import catalogue

ACGAN = {  # block -> rule -> (G, D) at widths 64, 256, 512
    (1024, 15, 15): {
        "flat": [(728256, 666883), (4485888, 3552259), (13166080, 9463811)],
        "pyramid": [(1273984, 971523), (12960256, 8309763), (30001152, 18927619)],
    },
    (512, 30, 30): {
        "flat": [(699712, 408963), (4814080, 2962947), (15002112, 9464835)],
        "pyramid": [(3277184, 1869571), (28559872, 16569347), (42586112, 26007555)],
    },
    (256, 60, 60): {
        "flat": [(503232, 298499), (4814592, 2963459), (17100288, 10645507)],
        "pyramid": [(11289472, 6467331), (41538048, 25418755), (53598208, 34267139)],
    },
    (128, 120, 120): {
        "flat": [(437824, 261763), (5339392, 3258883), (20247040, 12416003)],
        "pyramid": [(27249536, 15832835), (54123008, 34563075), (69328896, 43116547)],
    },
}


def _published() -> list[tuple[str, str, dict[str, object], int]]:
    """(study, name, part of the configuration, parameters)"""
    rows: list[tuple[str, str, dict[str, object], int]] = [
        ("A", "unet", {"in_channels": 1}, 34512193),
        ("A", "unet", {"in_channels": 4}, 34513921),
        ("A", "unet_encoder", {"in_channels": 1}, 18842048),
        ("A", "unet_encoder", {"in_channels": 4}, 18843776),
        ("A", "feature_cnn", {"shape": (1024, 15, 15)}, 1290945),
        ("A", "feature_cnn", {"shape": (512, 30, 30)}, 701121),
        ("A", "feature_cnn", {"shape": (256, 60, 60)}, 406209),
        ("A", "feature_cnn", {"shape": (128, 120, 120)}, 258753),
        ("B", "dcgan32_generator", {}, 4870785),
        ("B", "dcgan32_discriminator", {}, 791169),
        ("B", "resnet50", {"dropout": 0.4}, 25557032 - 2 * 3136 - 998 * 2049),
        ("D", "dcgan128_generator", {"kernel": 5}, 23835779),
        ("D", "dcgan128_generator", {"kernel": 4}, 17639171),
        ("D", "dcgan128_discriminator", {"kernel": 5}, 17433089),
        ("D", "dcgan128_discriminator", {"kernel": 4}, 11164481),
        ("D", "separable_cnn", {"shape": (3, 224, 224)}, 6640226),
    ]
    for size, count in ((32, 8685283), (64, 21268195), (128, 71599843), (224, 210011875)):
        rows.append(("C", "cnn12", {"shape": (1, size, size), "n_out": 3}, count))
        rows.append(("C", "cnn12", {"shape": (1, size, size), "n_out": 2}, count - 2049))
    for shape, rules in ACGAN.items():
        for rule, counts in rules.items():
            for width, (generator, discriminator) in zip((64, 256, 512), counts, strict=True):
                common = {"shape": shape, "width_rule": rule}
                rows.append(("A", "acgan_generator", {**common, "ngf": width}, generator))
                rows.append(("A", "acgan_discriminator", {**common, "ndf": width}, discriminator))
    # Ours, not the papers': linear layers counted by hand at d = 64, hidden 256, 2 classes.
    rows += [
        ("A", "linear", {"shape": (channels, size, size)}, 2 * channels + 2)
        for channels, size in ((1024, 15), (512, 30), (256, 60), (128, 120))
    ]
    hidden = 256 * 257
    block = 257 * 512 + 2 * hidden
    leave = 2 * 256 + 257 * 64
    rows += [
        ("A", "wgan_gp_generator", {}, 65 * 256 + hidden + 257 * 64),
        ("A", "wgan_gp_critic", {}, 67 * 256 + hidden + 257),
        ("A", "flow_matching", {}, 65 * 256 + 3 * 256 + 65 * 256 + 3 * block + leave),
    ]
    return rows


def test_catalogue_is_the_published_tables_and_nothing_else() -> None:
    unmatched = catalogue()
    for study, name, configuration, count in _published():
        found = [
            row
            for row in unmatched
            if (row["study"], row["name"]) == (study, name)
            and configuration.items() <= row["configuration"].items()
        ]
        assert [row["parameters"] for row in found] == [count], (study, name, configuration)
        unmatched.remove(found[0])
    assert unmatched == []


def test_catalogue_is_quick_and_fit_for_json() -> None:
    start = time.process_time()
    rows = catalogue()
    assert time.process_time() - start < 10
    assert len(json.loads(json.dumps(rows))) == len(rows)
    assert {row["study"] for row in rows} == set("ABCD")
    keys = {"study", "name", "configuration", "parameters"}
    assert all(set(row) == keys for row in rows)
