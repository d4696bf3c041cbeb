"""Fencing: each grant's token is greater than every earlier one's on that semaphore."""

from datetime import UTC, datetime, timedelta

from .cases import StoreTestCase


class TokenTests(StoreTestCase):
    """The tokens of a store that supports fencing."""

    def test_tokens_rise_across_release_expiry_and_force_release(self) -> None:
        self.require(self.backend.supports_fencing, "fencing tokens")
        semaphore, tokens = self.new_semaphore(), []
        for _ in range(3):
            held = self.grant(semaphore)
            tokens.append(held.grant.token)
            self.backend.release(held)
            [expired] = self.expired(semaphore, ttl=0.01)
            tokens.append(expired.token)
            if self.backend.supports_listing:
                tokens.append(self.force_released(semaphore))
        self.assert_rising(tokens)

    def test_tokens_follow_the_clock(self) -> None:
        """So a token rises even if the store has lost the previous one."""
        self.require(self.backend.supports_fencing, "fencing tokens")
        tokens = [self.grant(self.new_semaphore()).grant.token for _ in range(3)]
        for token in tokens:
            assert token is not None
            moment = datetime.fromtimestamp(token / 1_000_000, UTC)
            self.assertLess(abs(moment - datetime.now(UTC)), timedelta(minutes=5))

    def force_released(self, semaphore: str) -> int | None:
        """Acquire a semaphore, force-release it, and return the token."""
        token = self.grant(semaphore).token
        assert token is not None
        self.assertTrue(self.backend.force_release(semaphore, token))
        return token
