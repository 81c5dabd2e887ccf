"""The vectors that a probe is asked about: the right cell of each map, and the right words for it."""

import torch

from minivis.data.scenes import Scenes, load_shipped_scenes
from minivis.detr.backbone import SmallConvBackbone
from minivis.experiments.probing import vectors_of_objects


def test_each_object_has_the_vectors_of_its_middle_and_its_own_words():
    torch.manual_seed(0)
    backbone = SmallConvBackbone((4, 8))
    found = vectors_of_objects(backbone, scenes=7, batch_size=3)
    described, pictures = Scenes("val"), load_shipped_scenes()
    things = [(i, thing) for i in range(7) for thing in described[i][0].objects]
    assert [tuple(level.shape) for level in found.levels] == [(len(things), n) for n in (3, 4, 8)]
    for number, (scene, thing) in enumerate(things):
        assert found.scenes[number] == scene
        assert described.world.shapes[found.shapes[number]] == thing.shape
        assert list(described.world.colours)[found.colours[number]] == thing.colour

    pixels, target = pictures[0]
    images = pictures.prepare(pictures.collate([pictures[0]])).images
    with torch.inference_mode():
        last = backbone(images)[-1].features[0]
    for number, (x, y, _, _) in enumerate(target["boxes"].tolist()):
        assert torch.equal(found.levels[0][number], pixels[:, int(y * 128), int(x * 128)])
        torch.testing.assert_close(found.levels[-1][number], last[:, int(y * 32), int(x * 32)])
