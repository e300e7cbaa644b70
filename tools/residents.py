"""The manifests of drains that stay, outside of Dagster: one Deployment and one ScaledObject for each spec that has
residents. `make deploy-files` writes them into `deploy/kubernetes/residents`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from regworkers_core.drains.runner import DrainSpec, number_of
from regworkers_core.flows import DRAINS
from regworkers_core.settings import PROJECT_ROOT, Settings, settings_of

FOLDER = PROJECT_ROOT / "deploy" / "kubernetes" / "residents"
_DRAINS = """\
# Drains that stay, outside of Dagster (docs/scaling.md says when): kubectl apply -k deploy/kubernetes/residents
# Two of each: one works, the newest is the standby and takes over. scaling.yaml starts more while their source grows.
# On SIGTERM a drain finishes what is in flight and hands over at once. Accounts, secrets and sizes are those of the
# runs. `make deploy-files` writes this file.
"""
_DRAIN = Template("""# $source.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: regworkers-$name
spec:
  # No `replicas`: KEDA sets them, and a new `apply` would set them back.
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {app: regworkers-$name}
  template:
    metadata:
      labels: {app: regworkers-$name, regworkers/duty: $duty}
    spec:
      serviceAccountName: regworkers-$duty
      # As a run's: a few batches and their retries.
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {app: regworkers-$name}
      containers:
        - name: drain
          image: regworkers
          imagePullPolicy: IfNotPresent
          command: [regworkers, drain, $name, --resident, --beat-file, /tmp/beat]
          env:
            - {name: HOME, value: /tmp}
            # It waits in its pod until a dependency is back: a restarted container would wait up to five minutes more.
            - {name: REGWORKERS_DRAIN__OUTAGE_SECONDS, value: "3600"}
          envFrom:
            - configMapRef: {name: regworkers-settings}
            - secretRef: {name: regworkers-$duty}
          # The drain touches the file after each heartbeat that DynamoDB has confirmed, every second; while it is
          # paused or its fuse is blown, every 5 s.
          startupProbe:
            exec: {command: [test, -f, /tmp/beat]}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            exec: {command: [sh, -c, test "$$(find /tmp/beat -newermt '15 seconds ago')"]}
            periodSeconds: 5
            timeoutSeconds: 5
          # Longer than DynamoDB is ever throttled: a restart only adds a start to the outage.
          livenessProbe:
            exec: {command: [sh, -c, test "$$(find /tmp/beat -newermt '300 seconds ago')"]}
            periodSeconds: 30
            timeoutSeconds: 5
          resources:
            requests: {cpu: 500m, memory: 512Mi, ephemeral-storage: 1Gi}
            limits: {memory: 1Gi, ephemeral-storage: 1Gi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: tmp, emptyDir: {}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: regworkers-$name
spec:
  minAvailable: 1
  selector:
    matchLabels: {app: regworkers-$name}
""")
_SCALING = """\
# How many of each drain: KEDA reads the depth of the queues and the age of the stream. Replace the number of the AWS
# account, the region, and `prod-` and `prod` by the prefix and the name of the environment (../../../configs).
# `make deploy-files` writes this file.
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: regworkers-scaling
spec:
  # The role of KEDA's operator.
  podIdentity: {provider: aws}
"""
_SCALED = Template("""apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: regworkers-$name
spec:
  scaleTargetRef: {name: regworkers-$name}
  pollingInterval: 15
  # One at work and a standby, also while no campaign is open: KEDA knows no campaigns.
  minReplicaCount: 2
  # $setting of the environment, and the standby.$note
  maxReplicaCount: $most
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        # Each one that leaves hands over: one a minute, and only after five quiet minutes.
        scaleDown:
          stabilizationWindowSeconds: 300
          policies:
            - {type: Pods, value: 1, periodSeconds: 60}
""")
_BY_QUEUE = Template("""  triggers:
    - type: aws-sqs-queue
      metadata:
        queueURL: https://sqs.$region.amazonaws.com/123456789012/$queue
        # Half of $setting: the newest drain is the standby.
        queueLength: "$messages"
        awsRegion: $region
      authenticationRef: {name: regworkers-scaling}
""")
_BY_STREAM = Template("""  triggers:
    - type: aws-cloudwatch
      # For each drain, not for all together.
      metricType: AverageValue
      metadata:
        # The sensor observe_replication publishes it, with every tick.
        namespace: $namespace
        metricName: GetRecords.IteratorAgeMilliseconds
        dimensionName: Environment;TableName
        dimensionValue: $environment;$table
        metricStat: Maximum
        metricStatPeriod: "60"
        metricCollectionTime: "300"
        # Half of replication.lagObjectiveSeconds: the newest drain is the standby.
        targetMetricValue: "$milliseconds"
        minMetricValue: "0"
        awsRegion: $region
      authenticationRef: {name: regworkers-scaling}
""")


def manifests(settings: Settings) -> dict[str, str]:
    """The texts of `drains.yaml` and `scaling.yaml`. Raises LookupError for a spec whose source has no trigger here."""
    residents = [spec for spec in DRAINS if spec.residents]
    return {
        "drains.yaml": _DRAINS + "---\n".join(_deployment(spec) for spec in residents),
        "scaling.yaml": "---\n".join([_SCALING, *(_scaled(spec, settings) for spec in residents)]),
    }


def _deployment(spec: DrainSpec[Any]) -> str:
    source = "The stream of the demand table" if spec.fills else spec.queue
    return _DRAIN.substitute(name=spec.name, duty=spec.duty, source=source)


def _scaled(spec: DrainSpec[Any], settings: Settings) -> str:
    """KEDA reads numbers from texts. The newest pod is the standby, so a pod has half the work of a drain."""
    most = _SCALED.substitute(
        name=spec.name,
        setting=spec.most_drains,
        note=" More than shards do nothing." if spec.fills else "",
        most=number_of(settings, spec.most_drains) + 1,
    )
    if spec.system == "aws_sqs":
        return most + _BY_QUEUE.substitute(
            queue=settings.names.prefix + spec.queue,
            setting=spec.messages_each,
            messages=number_of(settings, spec.messages_each) // 2,
            region=settings.aws.region,
        )
    by_source = {"aws_dynamodb_streams": _BY_STREAM}
    return most + by_source[spec.system].substitute(
        environment=settings.environment,
        table=settings.names.demand_table,
        namespace=settings.observability.cloudwatch_namespace,
        milliseconds=round(settings.replication.lag_objective_seconds * 1000 / 2),
        region=settings.aws.region,
    )


def write_residents() -> Iterator[Path]:
    """The files of production, which name the account in an example. Raises UsageError for invalid settings."""
    for name, text in manifests(settings_of("prod")).items():
        path = FOLDER / name
        path.write_text(text, encoding="utf-8")
        yield path
