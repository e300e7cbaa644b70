"""The one object that holds all sections."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from regworkers_core.domain.claim import WRITE_GRACE_SECONDS
from regworkers_core.settings.connections import (
    AwsSettings,
    CacheSettings,
    DagsterSettings,
    KafkaSettings,
    MongoSettings,
    RedisSettings,
    RetrySettings,
    ServicesSettings,
    VaultSettings,
)
from regworkers_core.settings.documents import Document, read_config, read_stack
from regworkers_core.settings.flows import (
    AnalyticsSettings,
    ArchiveSettings,
    DrainSettings,
    EligibilitySettings,
    EnqueueSettings,
    InvitesSettings,
    ReplicationSettings,
    SaveSettings,
    SelectionSettings,
)
from regworkers_core.settings.names import Names
from regworkers_core.settings.operations import (
    AlertSettings,
    CertificatesSettings,
    DeadLettersSettings,
    HousekeepingSettings,
    ObservabilitySettings,
    ReviewsSettings,
    WebSettings,
)
from regworkers_core.settings.places import ENV_PREFIX, Environment


class Settings(BaseSettings):
    """Everything that can be set. Immutable; secrets are `SecretStr` and print as `***`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    environment: Environment = "local-dev"
    # Prefix of every table, queue, topic, bucket and database; [A-Za-z0-9_-] only.
    resource_prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]*$", max_length=40)
    sensors_on: bool = False
    aws: AwsSettings = AwsSettings()
    mongo: MongoSettings = MongoSettings()
    redis: RedisSettings = RedisSettings()
    cache: CacheSettings = CacheSettings()
    kafka: KafkaSettings = KafkaSettings()
    retry: RetrySettings = RetrySettings()
    drain: DrainSettings = DrainSettings()
    enqueue: EnqueueSettings = EnqueueSettings()
    save: SaveSettings = SaveSettings()
    replication: ReplicationSettings = ReplicationSettings()
    selection: SelectionSettings = SelectionSettings()
    invites: InvitesSettings = InvitesSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    services: ServicesSettings = ServicesSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    archive: ArchiveSettings = ArchiveSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    alerts: AlertSettings = AlertSettings()
    certificates: CertificatesSettings = CertificatesSettings()
    reviews: ReviewsSettings = ReviewsSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    vault: VaultSettings = VaultSettings()
    dagster: DagsterSettings = DagsterSettings()
    web: WebSettings = WebSettings()
    observability: ObservabilitySettings = ObservabilitySettings()

    @field_validator("selection")
    @classmethod
    def _the_draw_waits_for_late_entries(
        cls, selection: SelectionSettings, info: ValidationInfo
    ) -> SelectionSettings:
        if (
            info.data.get("environment") != "local-dev"
            and selection.write_grace_seconds < WRITE_GRACE_SECONDS
        ):
            raise PydanticCustomError(
                "write_grace",
                "should be at least {least}: so long after the closing entries still land that were made before it, "
                "and the draw would miss them; found {found}",
                {
                    "field": "write_grace_seconds",
                    "least": f"{WRITE_GRACE_SECONDS:g}",
                    "found": f"{selection.write_grace_seconds:g}",
                },
            )
        return selection

    @cached_property
    def names(self) -> Names:
        return Names(self.resource_prefix, bucket=self.selection.bucket)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            Document(settings_cls, read_config()),
            Document(settings_cls, read_stack()),
        )
