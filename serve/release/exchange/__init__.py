"""Exchange of releases with OCI registries: form, transport, and what is read and written here."""
