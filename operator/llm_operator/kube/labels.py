"""Labels on every child, by which the watches select it and a key is found."""

from __future__ import annotations

from llm_operator.api.common import GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "llm-operator"
TRAINING = f"{GROUP}/training"
SERVING = f"{GROUP}/serving"
APP = f"{GROUP}/app"
KNOWLEDGE = f"{GROUP}/knowledge"
COMPONENT = "app.kubernetes.io/component"
STAGE = f"{GROUP}/stage"
ATTEMPT = f"{GROUP}/attempt"
PROCESSES = f"{GROUP}/processes-per-pod"
PUBLICATION = f"{GROUP}/publication"
JOB_NAME = "batch.kubernetes.io/job-name"  # the Job controller puts it on every pod of a Job
