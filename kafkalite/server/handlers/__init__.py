"""The handlers of the APIs: from a typed request to a typed response, one module a family.

A handler gathers what it needs, asks the part of the broker that knows, and answers. Rules live
in those parts; schemas, content types and errors that concern every API in
:mod:`kafkalite.server.application`.
"""
