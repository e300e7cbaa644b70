"""Who says that a result may go out: somebody who types the campaign's id, or the settings."""

from __future__ import annotations

from regworkers_core.runtime import Runtime
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw


def test_where_the_settings_say_so_a_draw_goes_out_without_a_word(runtime: Runtime) -> None:
    close_campaign(runtime)
    selection = runtime.settings.selection.model_copy(update={"auto_publish": True})
    automatic = Runtime(runtime.settings.model_copy(update={"selection": selection}))
    *_, report, publication = draw(automatic).steps(None)
    automatic.mongo.close()
    assert (report.name, publication.name, publication.state) == ("report", "publish", "done")
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.latest.fields["confirmedBy"] == "settings"
    assert runtime.queue(runtime.names.selection_queue).depth().total > 0
