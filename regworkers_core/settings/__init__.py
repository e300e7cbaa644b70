"""All settings, as one typed object: `configs/<CONFIG_ENV>.config.yml`, overridden by the environment
(`REGWORKERS_<SECTION>__<FIELD>`).

In local-dev the addresses of the embedded stack come from its state file, so that the terminal, the tests
and every Dagster process find the same servers.
"""

from regworkers_core.settings.connections import (
    AwsSettings,
    CacheSettings,
    DagsterSettings,
    KafkaSettings,
    KafkaTlsSettings,
    MongoSettings,
    RedisSettings,
    RetrySettings,
    ServiceSettings,
    ServicesSettings,
    VaultSettings,
)
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
from regworkers_core.settings.loading import load_settings, masked, settings_of
from regworkers_core.settings.model import Settings
from regworkers_core.settings.names import Names
from regworkers_core.settings.operations import (
    AlertSettings,
    AlertSeverities,
    CertificatesSettings,
    DeadLettersSettings,
    HousekeepingSettings,
    ObservabilitySettings,
    QueueDepths,
    ReviewsSettings,
)
from regworkers_core.settings.places import (
    ENV_PREFIX,
    PROJECT_ROOT,
    Environment,
    config_file,
    stack_state,
    stack_state_file,
)

__all__ = [
    "ENV_PREFIX",
    "PROJECT_ROOT",
    "AlertSettings",
    "AlertSeverities",
    "AnalyticsSettings",
    "ArchiveSettings",
    "AwsSettings",
    "CacheSettings",
    "CertificatesSettings",
    "DagsterSettings",
    "DeadLettersSettings",
    "DrainSettings",
    "EligibilitySettings",
    "EnqueueSettings",
    "Environment",
    "HousekeepingSettings",
    "InvitesSettings",
    "KafkaSettings",
    "KafkaTlsSettings",
    "MongoSettings",
    "Names",
    "ObservabilitySettings",
    "QueueDepths",
    "RedisSettings",
    "ReplicationSettings",
    "RetrySettings",
    "ReviewsSettings",
    "SaveSettings",
    "SelectionSettings",
    "ServiceSettings",
    "ServicesSettings",
    "Settings",
    "VaultSettings",
    "config_file",
    "load_settings",
    "masked",
    "settings_of",
    "stack_state",
    "stack_state_file",
]
