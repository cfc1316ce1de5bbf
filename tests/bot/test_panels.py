"""Whoever presses is told, in a toast; in a message where their press had to be answered before there were words."""

from __future__ import annotations

from telegram import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup
from telegram.ext import ExtBot

from bot.pace import TELEGRAMS, Pace
from bot.panels import tell
from bot.screen import Screen
from bot.toasts import WITHIN_SECONDS, Toasts
from tests.fakes.telegram import FakeTelegram


async def test_words_for_a_press_that_was_answered_in_time_without_them_are_a_message() -> None:
    telegram, now = FakeTelegram(limits=None), [0.0]
    with telegram.running():
        bob = telegram.user("Bob")
        chat = telegram.private(bob)
        bob.says(chat, "/models")
        async with ExtBot(telegram.token, base_url=telegram.base_url) as bot:
            toasts = Toasts(lambda: now[0])
            screen = Screen(bot, Pace(TELEGRAMS), toasts)
            keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("one", callback_data="untag:1")]])
            await bot.send_message(chat.id, "?", reply_markup=keyboard)
            seen = 0

            async def pressed() -> CallbackQuery:
                nonlocal seen
                updates = await bot.get_updates(seen)
                seen = updates[-1].update_id + 1
                assert updates[-1].callback_query is not None
                return updates[-1].callback_query

            quick = bob.presses(chat.answers[-1], "one")
            query = await pressed()
            toasts.expect(query)
            await tell(screen, query, "at once")
            assert (quick.answer, chat.texts[-1]) == ("at once", "?")

            slow = bob.presses(chat.answers[-1], "one")
            query = await pressed()
            toasts.expect(query)
            now[0] += WITHIN_SECONDS
            await toasts.look()
            assert slow.answered
            await tell(screen, query, "late")
            await tell(screen, query, "")
            assert (slow.answer, chat.texts[-1]) == ("", "late")
    assert telegram.refusals == []
