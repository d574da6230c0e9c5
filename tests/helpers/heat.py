"""What image prompts add, kept while they add it: by hand, beside what a watch records."""

import torch
import torch.nn.functional as F
from image_prompt import host
from image_prompt.ipadapter_core.attention import COND, AtSite


class ByHand:
    """For each residual the maps (pictures, h, w) of its calls: norm of what came, beside that of the base."""

    def __init__(self, monkeypatch):
        self.maps: dict[int, list[torch.Tensor]] = {}
        add_to, last = AtSite.add_to, {}

        def watching(site, out, q, heads, chunks, size, *rest):
            rows, front = len(q) // len(chunks), (*size, 0)[2]
            at = (
                slice(chunks.index(COND) * rows, (chunks.index(COND) + 1) * rows),
                slice(front, front + size[0] * size[1]),
            )
            before = out[at].double().clone()
            if last.get("q") is not q:  # the first prompt of a site gets what attention gave
                last.update(q=q, base=before)
            done = add_to(site, out, q, heads, chunks, size, *rest)
            share = (done[at].double() - before).norm(dim=-1) / last["base"].norm(dim=-1)
            self.maps.setdefault(id(site), []).append(share.unflatten(1, size[:2]))
            return done

        monkeypatch.setattr(AtSite, "add_to", watching)

    def mean(self, model, number, size):
        """(pictures, H, W) over the latent, of the prompt applied as number `number` at all its sites."""
        maps = [
            F.interpolate(each[:, None], size, mode="nearest-exact")[:, 0]
            for at_site in host.residuals_of(model).values()
            for each in self.maps[id(at_site[number].site)]
        ]
        return torch.stack(maps).mean(0)


def assert_same_as_by_hand(watch, model, by_hand, size):
    """Each prompt's map, and their sum."""
    (run,) = watch.runs.values()
    got = [maps.double() for _, maps in run.heat()]
    expected = [by_hand.mean(model, number, size) for number in range(len(got))]
    for one, other in zip((*got, sum(got)), (*expected, sum(expected)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert min(float(maps.max()) for maps in got) > 1e-3
