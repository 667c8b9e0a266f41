"""Who may do what on a Hub: tokens, users, private and gated repositories."""

from dataclasses import dataclass, field
from typing import NamedTuple

from .store import RepoNotFound, Repository


class Token(NamedTuple):
    """Whose a token is, and whether it may write."""

    user: str
    may_write: bool = True


class Refused(Exception):
    """What a token may not do.

    Args:
        status: 401 where another token could help, 403 where the user may not.
        message: For whoever asked.
        code: What the clients tell errors by.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Access:
    """Tokens, and namespaces beside the users' own."""

    tokens: dict[str, Token] = field(default_factory=dict)
    organizations: dict[str, set[str]] = field(default_factory=dict)

    def token(self, authorization: str | None) -> Token | None:
        """Raises `Refused` for a token that nobody has, whatever it is used for."""
        if authorization is None:
            return None
        secret = authorization.removeprefix("Bearer ")
        if secret not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[secret]

    def owns(self, user: str, namespace: str) -> bool:
        return user == namespace or user in self.organizations.get(namespace, ())

    def require_user(self, token: Token | None) -> Token:
        if token is None:
            raise Refused(401, "Invalid username or password.")
        return token

    def require_known(self, token: Token | None, repository: Repository | None) -> Repository:
        """A repository that the token's user may know of; otherwise it is as if it were not there."""
        if repository and (not repository.private or (token and self.owns(token.user, repository.owner))):
            return repository
        if token is None:
            raise Refused(401, "Invalid username or password.", code="RepoNotFound")
        raise RepoNotFound("Repository not found")

    def require_content(self, token: Token | None, repository: Repository) -> None:
        """Files of a gated repository are for its owners, and for those who were let in."""
        if not repository.gated:
            return
        if token is None:
            raise Refused(401, f"Access to {repository.name} is restricted. Please log in.", code="GatedRepo")
        if not (self.owns(token.user, repository.owner) or token.user in repository.may_read_gated):
            raise Refused(403, f"Access to {repository.name} is restricted. Ask for access.", code="GatedRepo")

    def require_write(self, token: Token | None, namespace: str) -> Token:
        token = self.require_user(token)
        if not (token.may_write and self.owns(token.user, namespace)):
            raise Refused(403, f"You don't have the rights to write in the namespace {namespace}.")
        return token
