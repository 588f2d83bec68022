#!/usr/bin/env bash
# Makes what docker-compose.yaml asks for under .airloop/secrets (or the folder given): random passwords and keys, a
# certificate authority of this machine's own, and a certificate for each service that takes TLS. What is there stays:
# run it again after a change of the services. To renew a certificate, delete its file; all, `rm *_tls *_ssl *authorit*`.
#
# The folder is private (0700), and the files in it readable for all, because each container has another user.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.airloop/secrets}
days=825
mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"
umask 022

random() { openssl rand -hex 24 | tr -d '\n'; }
# Whole or not at all: a file that is there is taken for made.
keep() { if [ ! -s "$1" ]; then cat >"$1.part" && mv "$1.part" "$1"; else cat >/dev/null; fi; }

for name in postgres_password redis_password broker_password airflow_password airflow_secret_key airflow_jwt_secret \
  grafana_password s3_access_key s3_secret_key spark_secret; do
  random | keep "$name"
done
openssl rand -base64 32 | tr '+/' '-_' | tr -d '\n' | keep airflow_fernet_key
printf '*:*:*:airloop:%s\n' "$(cat postgres_password)" | keep pgpass
printf 'redis:6379,password=%s,ssl=True,ssl_ca_certs=/run/secrets/authority' "$(cat redis_password)" |
  keep airloop_redis_connection
printf 'rediss://:%s@broker:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/run/secrets/authority' \
  "$(cat broker_password)" | keep celery_broker_url
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$(cat s3_access_key)" "$(cat s3_secret_key)" |
  keep aws_credentials
printf 'spark.authenticate true\nspark.authenticate.secret %s\nspark.network.crypto.enabled true\n' "$(cat spark_secret)" |
  keep spark_defaults
printf '{"spark.authenticate": "true", "spark.authenticate.secret": "%s", "spark.network.crypto.enabled": "true"}' \
  "$(cat spark_secret)" | keep airloop_spark_conf
# Of Slack's app "Incoming Webhooks"; until it is put there, alerts of Prometheus go nowhere.
printf 'https://hooks.slack.com/services/none' | keep slack_webhook_url

if [ ! -s authority ]; then
  # The authority's key is needed only here; whoever has it can be anyone.
  openssl req -x509 -newkey rsa:3072 -sha256 -nodes -days $days -subj '/CN=Airloop local authority' \
    -addext basicConstraints=critical,CA:true,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout authority_key.part -out authority.part 2>/dev/null
  chmod 0600 authority_key.part
  mv authority_key.part authority_key
  mv authority.part authority
fi
{ cat /etc/ssl/certs/ca-certificates.crt 2>/dev/null || true; cat authority; } | keep authorities
if [ ! -s java_authorities ]; then
  rm -f java_authorities.part
  keytool -importcert -noprompt -alias airloop -file authority -keystore java_authorities.part -storetype PKCS12 \
    -storepass changeit 2>/dev/null
  mv java_authorities.part java_authorities
fi

# Key and certificate in one file, named after the service and localhost, for its health check.
certificate() {
  local file=$1
  shift
  [ -s "$file" ] && return
  local names=DNS:localhost,IP:127.0.0.1 name
  for name in "$@"; do names+=,DNS:$name; done
  openssl req -newkey rsa:2048 -sha256 -nodes -subj "/CN=$1" -keyout "$file.key.part" -out "$file.csr.part" 2>/dev/null
  openssl x509 -req -sha256 -days $days -in "$file.csr.part" -CA authority -CAkey authority_key -CAcreateserial \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:false\n' "$names") \
    -out "$file.crt.part" 2>/dev/null
  cat "$file.key.part" "$file.crt.part" authority >"$file.part"
  rm -f "$file.key.part" "$file.crt.part" "$file.csr.part"
  mv "$file.part" "$file"
}
certificate postgres_tls postgres
certificate redis_tls redis
certificate broker_tls broker
certificate kafka_tls kafka
certificate s3_tls s3
certificate mlflow_tls mlflow
certificate airflow_tls airflow-api-server
certificate gateway_tls gateway gateway-1 gateway-2
certificate model_server_tls model-server
certificate nginx_tls nginx
if [ ! -s model_server_ssl ]; then
  {
    printf 'server_key: "%s"\n' "$(openssl pkey -in model_server_tls | awk '{printf "%s\\n", $0}')"
    printf 'server_cert: "%s"\n' "$(openssl x509 -in model_server_tls | awk '{printf "%s\\n", $0}')"
  } | keep model_server_ssl
fi
