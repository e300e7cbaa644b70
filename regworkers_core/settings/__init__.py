"""All settings, as one typed object: `configs/<CONFIG_ENV>.config.yml`, overridden by the environment
(`REGWORKERS_<SECTION>__<FIELD>`).

In local-dev the addresses of the embedded stack come from its state file, so that the terminal, the tests
and every Dagster process find the same servers.
"""

from regworkers_core.settings.connections import (
    AwsSettings,
    KafkaSettings,
    KafkaTlsSettings,
    MongoSettings,
    RedisSettings,
    ServiceSettings,
    ServicesSettings,
    VaultSettings,
)
from regworkers_core.settings.documents import (
    PROJECT_ROOT,
    Environment,
    config_file,
    stack_state,
    stack_state_file,
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
    StreamSettings,
)
from regworkers_core.settings.model import (
    Names,
    Settings,
    load_settings,
    masked,
    settings_of,
)
from regworkers_core.settings.operations import (
    AlertSettings,
    AlertSeverities,
    BurnRate,
    CertificatesSettings,
    ObjectivesSettings,
)

__all__ = [
    "PROJECT_ROOT",
    "AlertSettings",
    "AlertSeverities",
    "AnalyticsSettings",
    "ArchiveSettings",
    "AwsSettings",
    "BurnRate",
    "CertificatesSettings",
    "DrainSettings",
    "EligibilitySettings",
    "EnqueueSettings",
    "Environment",
    "InvitesSettings",
    "KafkaSettings",
    "KafkaTlsSettings",
    "MongoSettings",
    "Names",
    "ObjectivesSettings",
    "RedisSettings",
    "ReplicationSettings",
    "SaveSettings",
    "SelectionSettings",
    "ServiceSettings",
    "ServicesSettings",
    "Settings",
    "StreamSettings",
    "VaultSettings",
    "config_file",
    "load_settings",
    "masked",
    "settings_of",
    "stack_state",
    "stack_state_file",
]
