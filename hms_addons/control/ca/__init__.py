"""The certificate authority of one trust domain.

The nouns, and how data flows between them:

    CSR ──▶ CertificateAuthority ──▶ template ──sign──▶ validator ──▶ chain for the sidecar
                    │
                    └──▶ TrustBundle (the roots that everyone trusts)

- `template` says what each kind of certificate looks like: root, intermediate, SVID.
- `authority` holds the signing key, judges CSRs and signs.
- `validator` checks every certificate after signing and before it is handed out.
- `authority_state` is what the control plane's CA keeps, and the steps in which a root is replaced.
- `mesh_authority` is the control plane's CA as it runs, kept in the store by `kept_authority`.
- `offline` is the CA as two commands over a folder: `hms certs init` and `hms certs issue`.
"""
