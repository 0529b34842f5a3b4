"""`s3`: a folder of objects in a bucket."""

from typing import Annotated

from pydantic import Field

from trainyard.api.addresses import FOLDER_IN_BUCKET, HttpUrl
from trainyard.api.base import ApiModel, SecretRef
from trainyard.api.run.placeholders import WITH_PLACEHOLDERS

VARYING = r"\{(name|model|version|date|timestamp|commit|digest|uri)\}"
"""What another run has other values for."""
_Folder = Annotated[str, *FOLDER_IN_BUCKET, *WITH_PLACEHOLDERS]
GOOGLE = "https://storage.googleapis.com"


class S3(ApiModel):
    """A folder of objects with the model, which is whole or not there, and stays what it is."""

    uri: _Folder = Field(
        description="s3://bucket/folder, or gs://bucket/folder for Google's store through its S3 interface. The files lie below it, "
        "manifest.json last. A folder that holds another model is never written to.",
    )
    latest: bool = Field(
        False,
        description="Also say in an object latest.json which folder is in use. It lies before the first part of uri that differs from "
        "run to run, at least in the folder above: s3://models/{agent}/{version} has s3://models/agent-sre/latest.json.",
    )
    endpoint: HttpUrl | None = Field(
        None,
        description="Address of the store. Default: AWS_ENDPOINT_URL of the secret, else Amazon's, or Google's for gs.",
    )
    region: str = Field(
        "", max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="Default: AWS_REGION of the secret, else us-east-1."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, "
        "AWS_REGION, ca.crt. For gs: an HMAC key.",
    )
