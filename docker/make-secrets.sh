#!/bin/sh
# Writes docker/.env and docker/secrets/, for this user only: what compose.yaml wants to start.
set -eu
umask 077
cd "$(dirname "$0")"
if [ -e .env ] || [ -e secrets ]; then
  echo "docker/.env or docker/secrets exists: nothing was changed; delete both to begin anew" >&2
  exit 2
fi

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

mlflow_password=$(random) postgres_password=$(random)
mkdir secrets
random > secrets/ray_token
random > secrets/site_key
cat > secrets/mlflow_auth.ini <<END
[mlflow]
default_permission = READ
database_uri = postgresql+psycopg2://mlflow:$postgres_password@postgres/mlflow_auth
admin_username = medaug
admin_password = $mlflow_password
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
cat > .env <<END
MEDAUG_UID=$(id -u)
MLFLOW_USER=medaug
MLFLOW_PASSWORD=$mlflow_password
MLFLOW_SECRET_KEY=$(random)
POSTGRES_PASSWORD=$postgres_password
S3_USER=mlflow
S3_PASSWORD=$(random)
END
echo "docker/.env and docker/secrets/ are written. Back up secrets/site_key: pseudonyms hang on it."
echo "The token for medaug submit:"
echo "  export RAY_AUTH_TOKEN_PATH=$PWD/secrets/ray_token"
