"""The contract with receivers: JSON Schema, OpenAPI and AsyncAPI, made of the models that write the events."""
