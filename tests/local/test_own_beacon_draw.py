"""A draw on the embedded stack goes the way of production: its round is asked for over HTTP, and waited for; a witness
cosigns its log.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdraw import scheduling
from fairdraw.log.follow import follow
from fairdraw.log.trust import Trust
from fairdraw.proof.beacon import verify_beacon
from fairdraw.terms import CHAIN_FILE
from regworkers_core.domain.selection import draw_key
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.source import in_bucket
from regworkers_core.settings import load_settings
from regworkers_core.settings.documents import TRUST_FILE
from regworkers_local.beacon import OwnChain
from regworkers_local.stack import Stack
from regworkers_local.witness import NAME
from tests.selection.draw.world import CAMPAIGN, close_campaign, done_to, draw
from tests.support.draws import record_of


@pytest.mark.slow
def test_the_stacks_own_beacon_seeds_a_draw_and_its_witness_cosigns_the_log(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stack(root, "drawn") as stack:
        monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(stack.folder.parent))
        monkeypatch.setenv("REGWORKERS_INSTANCE", stack.instance)
        runtime = Runtime(load_settings())
        list(provision(runtime))
        close_campaign(runtime)
        done_to("seed", draw(runtime))
        phase, own = record_of(runtime).phases[1], OwnChain.kept_in(stack.folder / "beacon")
        assert phase.chain == own.chain and phase.lead == 5
        source = phase.fields["seedSource"]
        assert source["chain"] == own.chain.hash
        assert verify_beacon(own.chain, source["round"], phase.signatures[str(source["round"])])
        assert not phase.published_late and not phase.replaced
        assert runtime.objects.get_bytes(draw_key(CAMPAIGN, CHAIN_FILE)) == own.chain.to_bytes()
        trust = Trust.parse((stack.folder / TRUST_FILE).read_bytes())
        followed = follow(in_bucket(runtime.objects), now=scheduling.now(), trust=trust)
        assert trust.vouches and not followed.findings and [*followed.witnesses] == [NAME]
