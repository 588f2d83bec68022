"""Signing in to Airflow by OpenID Connect, with our four roles: the file that `[fab] config_file` names.

Belongs here: where people come from, and which group of theirs has which role. Does not belong here: what a
role may do (`airloop_airflow.roles`).

Read by Airflow's FAB auth manager. What differs between deployments comes from Airflow's own configuration,
section `airloop_oidc`, such as the variable `AIRFLOW__AIRLOOP_OIDC__ISSUER`;
docs/how-to/sign-in-with-roles.md lists it. Without an issuer people have passwords in Airflow's database.
"""

from __future__ import annotations

from pathlib import Path

from airflow.configuration import conf
from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
from flask_appbuilder.const import AUTH_DB, AUTH_OAUTH

from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow.roles import ADMIN, APPROVER, OPERATOR, VIEWER, roles

SECTION = "airloop_oidc"
PROVIDER = "oidc"
ROLES = roles(FabAirflowSecurityManagerOverride.VIEWER_PERMISSIONS, all_use_cases())


class SecurityManager(FabAirflowSecurityManagerOverride):
    """FAB's own, with our roles, which have exactly the permissions that the code says."""

    ROLE_CONFIGS = [  # noqa: RUF012 - as the class that it extends has it
        *FabAirflowSecurityManagerOverride.ROLE_CONFIGS,
        *({"role": name, "perms": sorted(permissions)} for name, permissions in ROLES.items()),
    ]

    def sync_roles(self) -> None:
        """As FAB does, which only ever adds; what a role was granted in the UI, or by older code, goes."""
        super().sync_roles()
        for name, permissions in ROLES.items():
            role = self.find_role(name)
            for granted in list(role.permissions):
                if (granted.action.name, granted.resource.name) not in permissions:
                    self.remove_permission_from_role(role, granted)


SECURITY_MANAGER_CLASS = SecurityManager
# Whoever signs in for the first time may do nothing but what a group of theirs may.
AUTH_USER_REGISTRATION = True
AUTH_USER_REGISTRATION_ROLE = "Public"
# Who leaves a group loses its role with the next login.
AUTH_ROLES_SYNC_AT_LOGIN = True
AUTH_ROLES_MAPPING = {
    conf.get(SECTION, f"{role.lower()}_group", fallback=f"airloop-{role.lower()}"): [role]
    for role in (VIEWER, OPERATOR, APPROVER, ADMIN)
}
WTF_CSRF_ENABLED = True

_issuer = conf.get(SECTION, "issuer", fallback="").rstrip("/")
if _issuer:
    AUTH_TYPE = AUTH_OAUTH
    OAUTH_PROVIDERS = [
        {
            "name": PROVIDER,
            "icon": "fa-key",
            "token_key": "access_token",
            "remote_app": {
                "client_id": conf.get(SECTION, "client_id"),
                "client_secret": Path(conf.get(SECTION, "client_secret_file")).read_text("utf-8").strip(),
                "server_metadata_url": f"{_issuer}/.well-known/openid-configuration",
                "client_kwargs": {
                    "scope": conf.get(SECTION, "scope", fallback="openid profile email groups"),
                    # A code that somebody else caught is worth nothing to them.
                    "code_challenge_method": "S256",
                },
            },
        }
    ]
else:
    AUTH_TYPE = AUTH_DB
    AUTH_USER_REGISTRATION = False
