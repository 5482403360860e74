"""What KubeRay's own resources may hold, as of 1.5.1 (the first with token authentication).

The published definitions have 30,000 lines, nearly all of them Kubernetes' pod, which is checked
with Kubernetes' own schema. Theirs can be checked too:
``MEDAUG_KUBERAY_CRDS=…/helm-chart/kuberay-operator/crds pytest tests/cluster``.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}


def record(required: list[str], **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


TEMPLATE = record(["spec"], metadata={"type": "object"}, spec={"type": "object"})
GROUP = {"rayStartParams": TEXTS, "template": TEMPLATE, "resources": TEXTS, "labels": TEXTS}
CLUSTER = record(
    ["headGroupSpec"],
    rayVersion=TEXT,
    authOptions=record([], mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=FLAG,
    suspend=FLAG,
    headGroupSpec=record(["template"], serviceType=TEXT, enableIngress=FLAG, **GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": record(
            ["groupName", "minReplicas", "maxReplicas", "template"],
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            **GROUP,
        ),
    },
)
JOB = record(
    ["entrypoint", "rayClusterSpec"],
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    runtimeEnvYAML=TEXT,
    rayClusterSpec=CLUSTER,
)


def resource(kind: str, spec: Schema) -> Schema:
    named = {**record(["name"], name=TEXT), "additionalProperties": True}
    return record(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=named,
        spec=spec,
    )


SCHEMAS = {"raycluster": resource("RayCluster", CLUSTER), "rayjob": resource("RayJob", JOB)}


def published(definition: Schema) -> Schema:
    """The schema in a CustomResourceDefinition, with unknown fields refused as kubectl does."""
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    return closed(schema)


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        schema.pop("type", None)
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema
