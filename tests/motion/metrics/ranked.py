"""What each of several ranks does to measure a set together."""

import json
import sys
from pathlib import Path

import torch.distributed as dist
from torch.utils.data import DistributedSampler

from regrow.motion.metrics import MotionMetrics
from tests.motion.curves import predictions_of, scene_of

COUNT = 7


def scenes():
    return [
        (scene, *predictions_of(scene, seed)) for seed in range(COUNT) for scene in [scene_of(seed)]
    ]


def measure_together(out):
    """Measure a share of the scenes, gather the rest, and write the headline."""
    dist.init_process_group("gloo")
    metrics, own = MotionMetrics(), scenes()
    for place in DistributedSampler(range(COUNT), shuffle=False):  # repeats one on the last rank
        metrics.add(*own[place])
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, metrics.state_dict())
    for state in states:
        metrics.merge(state)
    Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(metrics.values().headline()))
    dist.destroy_process_group()
    sys.stdout.flush()
