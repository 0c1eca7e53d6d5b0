"""The other servers: small ones on other libraries, and configurations of third-party programs."""
