"""versitygw, an S3 server on a folder: for the tests of what is fetched from buckets."""

from __future__ import annotations

from tests.cluster.go_program import GoProgram
from tests.cluster.settings import HERE

VERSITYGW = GoProgram("versitygw", HERE / "s3_gateway", "github.com/versity/versitygw/cmd/versitygw")
