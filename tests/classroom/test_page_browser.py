"""The live page in a real browser: one start of it, and all that only a browser can say."""

import json
import signal
import socket
from pathlib import Path

import pytest

from tests.classroom.browser import PROGRAM, Browser
from tests.system.processes import Server, connect, receive_all
from uppercase.classroom.exercises import find_exercise
from uppercase.classroom.grade import Mark
from uppercase.classroom.marks import write_report
from uppercase.classroom.page._audience import CLIENTS
from uppercase.lab import UDP_PRESETS, answer_key, make_experiment

MARKUP = b"<img src=x onerror=alert(1)><b>bold</b>"
OPTIONS = ["--port=0", "--interface=127.0.0.1", "--page=0", "--page-key"]
LAB = ["--lab=stop-and-wait", "--seed=7"]

LIVE = "document.getElementById('state')?.dataset.state === 'live'"
ROWS = "[...document.querySelectorAll('#rows li')].map((row) => row.textContent)"
WIDTH = "document.documentElement.scrollWidth"
ARROWS = "[...document.querySelectorAll('#arrows .shaft')].map((each) => each.getAttribute('d'))"
FOLLOW = "document.getElementById('follow').ariaPressed"
STYLE = "getComputedStyle(document.querySelector('{}')).{}"
SPARE = """(() => {
  const words = document.querySelector('.words');
  words.textContent = 'late '.repeat(60);
  const [row, shown] = [words.closest('li'), words].map((each) => each.getBoundingClientRect());
  return row.bottom - shown.top - words.scrollHeight;
})()"""
CUT = """(() => {
  const note = document.querySelector('.note .label span');
  note.textContent = 'late '.repeat(60);
  return note.scrollWidth - note.clientWidth;
})()"""
BELOW_HEAD = """document.activeElement.getBoundingClientRect().top
  - document.querySelector('#columns th').getBoundingClientRect().bottom"""
HOLDS_FOCUS = "document.activeElement.ariaPressed === 'true'"

UNDRAWN = """(async () => {
  for (const button of [...document.querySelectorAll('#clients button')].reverse()) {
    button.click();
    await new Promise(requestAnimationFrame);
    const nothing = document.getElementById('nothing');
    if (!nothing.hidden) return nothing.textContent;
  }
})()"""

UPGRADED = """void (window.isOld = true, window.EventSource = class extends EventTarget {
  constructor() {
    super();
    const told = new MessageEvent('hello', { data: '{"edition": 1}' });
    setTimeout(() => this.dispatchEvent(told), 1);
  }
  close() {}
})"""

TWO_SERVICES = """
page = "0"
[services.one_whose_name_has_more_letters_than_a_phone_has_room_for]
protocol = "tcp"
port = 0
interface = "127.0.0.1"
[services.datagrams]
protocol = "udp"
port = 0
interface = "127.0.0.1"
loss = "reply:1"
"""


@pytest.mark.needs_program(PROGRAM)
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """It renders, is live, keeps to its policy, shows markup as text, and fits a phone."""
    with Server("uppercase-udp", *OPTIONS, *LAB, addresses=1) as server:
        log = server.wait_for_log("the page is at http://")
        url = log.split("the page is at ")[1].split()[0]
        browser = Browser(tmp_path / "profile")
        try:
            browser.size(1280, 800)
            browser.command("Emulation.setScriptExecutionDisabled", value=True)
            browser.open(url)
            browser.wait_for("document.querySelector('header noscript')?.offsetHeight > 0")
            assert "Nothing" not in browser.eval("document.body.innerText")
            browser.command("Emulation.setScriptExecutionDisabled", value=False)
            browser.open(url)
            browser.wait_for(LIVE)
            browser.wait_for("document.body.innerText.includes('Nothing has come yet')")

            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("127.0.0.1", server.port))
                for number in range(1, 13):
                    client.send(b"%d %s" % (number, MARKUP))
            browser.wait_for(f"{ROWS}.some((row) => row.includes('request lost'))")
            assert browser.eval(f"{ROWS}.some((row) => row.includes('<img src=x onerr'))")
            assert browser.eval("document.querySelectorAll('main img, main b b').length") == 0
            assert browser.eval("document.querySelectorAll('#arrows g.lost .cross').length") >= 1
            browser.wait_for("document.querySelector('#clients td')?.textContent === '12'")

            browser.eval("document.getElementById('line').focus()")
            browser.command("Input.insertText", text="hello")
            browser.press_return()
            browser.wait_for(
                "/datagram 1 of B: .*HELLO.*, reply delayed/"
                ".test(document.getElementById('sent').textContent)"
            )
            browser.wait_for("document.querySelectorAll('.tag.mine').length > 0")
            # Arrows are where the rows are on paper, too, which has another width.
            browser.wait_for(
                "(({viewBox, clientWidth}) => viewBox.baseVal.width === clientWidth)"
                "(document.getElementById('arrows'))"
            )
            # Nothing is said by colour alone: not whose a datagram is, nor where a theme has few.
            assert browser.eval(f"{ROWS}.some((row) => row.includes('your request 1'))")
            browser.wait_for(
                "/you$/.test(document.querySelectorAll('#clients button')[1].innerText)"
            )
            browser.prefer(forced_colors="active")
            ground = browser.eval(STYLE.format("body", "backgroundColor"))
            assert browser.eval(STYLE.format(".tag.mine", "backgroundColor")) != ground
            ink = browser.eval(STYLE.format("body", "color"))
            assert browser.eval(STYLE.format(".legend .dropped", "stroke")) == ink
            browser.prefer(forced_colors="none")

            browser.eval("document.getElementById('key').open = true")
            lines = browser.eval(
                "[...document.querySelectorAll('#key-lines li')].map((line) => line.textContent)"
            )
            current = browser.eval(
                "document.querySelector('#key-lines [aria-current]').textContent"
            )
            assert lines.index(current) == 1
            # Not every browser lets a keyboard scroll what it cannot reach.
            assert browser.eval("document.getElementById('key-lines').tabIndex") == 0
            experiment = make_experiment(UDP_PRESETS["stop-and-wait"].settings, seed=7)
            assert lines == [str(row) for row in answer_key(experiment, len(lines))]
            assert browser.eval("document.querySelectorAll('#clients button').length") == 2
            browser.eval("document.querySelector('#clients button').click()")
            browser.wait_for("document.getElementById('whose').textContent.startsWith('client A')")

            # The newest stays in view until one scrolls back.
            browser.eval("document.getElementById('timeline').focus()")
            browser.wait_for("document.getElementById('timeline').scrollTop > 100")
            browser.press("PageUp", 33)
            browser.wait_for(f"{FOLLOW} === 'false'")

            # Numbers begin again after a silent minute: its first datagram is not this one.
            peer = browser.eval("document.querySelectorAll('#clients .peer')[1].textContent")
            answer = {"client": peer, "number": 1}
            told = f"{{ok: true, json: async () => ({json.dumps(answer)})}}"
            browser.eval(f"void (window.fetch = async () => ({told}))")
            browser.eval("document.getElementById('line').focus()")
            browser.press_return()
            browser.wait_for("document.getElementById('sent').textContent === 'sent as datagram 1'")

            # Who holds a button, with the mouse or the keyboard, keeps it while clients come.
            browser.eval("document.querySelector('#clients button').focus()")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
                another.sendto(b"hi", ("127.0.0.1", server.port))
            browser.wait_for("document.querySelectorAll('#clients button').length === 3")
            assert browser.eval(HOLDS_FOCUS)
            # A screen reader says a button's name again when it changes.
            browser.wait_for("/^[1-9][0-9]* new$/.test(document.getElementById('fresh').innerText)")
            assert browser.eval("document.getElementById('follow').innerText") == "Follow"

            # The chosen client makes room, and nobody is left looking at nothing.
            for number in range(2 * CLIENTS):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
                    another.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
                    another.sendto(b"hi", ("127.0.0.1", server.port))
            browser.wait_for("document.getElementById('everyone').ariaPressed === 'true'")
            # Of so many at once not all are drawn: such a client has come, all the same.
            assert "arrows" in browser.eval(UNDRAWN)

            # Who goes back through the clients sees where the keyboard is.
            browser.eval("[...document.querySelectorAll('#clients button')].at(-1).focus()")
            for _ in range(9):
                browser.press("Tab", 9, modifiers=8)
                assert browser.eval(BELOW_HEAD) >= 0

            browser.eval("document.getElementById('everyone').click()")
            browser.wait_for(f"{ROWS}.length > 100")
            for width, height in ((360, 740), (1920, 1080)):
                browser.size(width, height)
                assert browser.eval(WIDTH) == width
                # However much the lab has done, it can be read.
                assert browser.eval(SPARE) >= 0
            # Neither large type nor a low window takes the timeline's room.
            browser.eval("document.getElementById('size').click()")
            for width, height in ((1024, 768), (1100, 350)):
                browser.size(width, height)
                browser.wait_for("document.getElementById('arrows').clientWidth > 200")
                assert browser.eval("document.getElementById('timeline').clientHeight") > 100
            browser.eval("document.getElementById('join').click()")
            assert "--page=tcp:" in browser.eval("document.getElementById('joining').innerText")
            # What its policy forbids, a browser would have said here.
            assert browser.console == []
            # What is injected all the same does not run.
            injected = "document.head.append(Object.assign(document.createElement('style'), {}))"
            browser.eval(f"{injected}; document.querySelector('head style').textContent = '*{{}}'")
            browser.wait_for("document.readyState === 'complete'")
            assert any("Content Security Policy" in each for each in browser.console)
            with pytest.raises(AssertionError, match="TrustedHTML"):
                browser.eval("document.body.innerHTML = '<p>x</p>'")

            unix = f"--listen=unix:{tmp_path}/socket"
            with Server("uppercase-tcp", unix, "--page=0", addresses=1) as other:
                log = other.wait_for_log("the page is at http://")
                browser.open(log.split("the page is at ")[1].split()[0])
                browser.wait_for(LIVE)
                command = f"uppercase send --unix {tmp_path}/socket"
                browser.wait_for(f"document.body.innerText.includes('{command}')")

            (tmp_path / "services.toml").write_text(TWO_SERVICES)
            with Server("uppercase", "--config=services.toml", cwd=tmp_path) as other:
                log = other.wait_for_log("the page is at http://")
                url = log.split("the page is at ")[1].split("/\n")[0]
                browser.open(url)
                browser.wait_for(LIVE)
                for protocol, address in other.addresses:
                    host, _, port = address.rpartition(":")
                    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
                    with socket.socket(socket.AF_INET, kind) as client:
                        client.connect((host, int(port)))
                        client.send(b"hello")
                browser.wait_for(f"{ROWS}.some((row) => row.includes('HELLO'))")
                assert browser.eval(CUT) == 0
                browser.eval("document.getElementById('follow').click()")
                button = "document.querySelectorAll('#services button')[1]"
                browser.eval(f"{button}.focus(); {button}.click()")
                browser.wait_for(f"{ROWS}.length === 2")
                assert browser.eval(HOLDS_FOCUS)
                # No arrow of the other service is left: one goes to the right, and one back.
                browser.wait_for(f"{ARROWS}.length === 2")
                assert sum(each.startswith("M0 ") for each in browser.eval(ARROWS)) == 1
                browser.size(360, 740)
                assert browser.eval(WIDTH) == 360
                browser.eval("document.getElementById('line').focus()")
                browser.command("Input.insertText", text="hello")
                browser.press_return()
                browser.wait_for("document.getElementById('sent').textContent.includes('lost')")
            # It comes back, with fewer services than a line is waited for at.
            again = Server("uppercase-udp", *OPTIONS, f"--page={url.split(':')[2]}", addresses=1)
            with again:
                browser.wait_for("document.getElementById('services').hidden")
                browser.wait_for(LIVE)
                # A network that brings nothing is no live one. Here 25 s pass in half a second.
                shorter = "(act, time) => later(act, time > 20000 ? time / 50 : time)"
                browser.eval(f"void ((later) => (window.setTimeout = {shorter}))(setTimeout)")
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"hello", ("127.0.0.1", again.port))
                browser.wait_for(f"{ROWS}.some((row) => row.includes('HELLO'))")
                again.process.send_signal(signal.SIGSTOP)
                try:
                    browser.wait_for(f"!({LIVE})")
                finally:
                    again.process.send_signal(signal.SIGCONT)
                browser.wait_for(LIVE)
                # After an upgrade of the server another page is there, which a browser fetches.
                browser.eval(UPGRADED)
                browser.wait_for(f"!window.isOld && {LIVE}")

            # As narrow, and as broken by nothing: a report on a program that prints long words.
            exercise = find_exercise("udp-client")
            marks = [Mark(check, False, "got " + 99 * "y", 0.1, False) for check in exercise.checks]
            write_report(exercise, marks, tmp_path)
            browser.open((tmp_path / "index.html").as_uri())
            browser.wait_for("document.title.startsWith('udp-client')")
            assert browser.eval(WIDTH) == 360
        finally:
            browser.close()


def test_a_process_serves_its_page_and_ends(tmp_path: Path) -> None:
    """Here, and not in memory: real sockets, a real stop with somebody watching."""
    with Server("uppercase-udp", *OPTIONS, addresses=1, cwd=tmp_path) as server:
        log = server.wait_for_log("the page is at http://127.0.0.1:")
        port = int(log.split("the page is at http://127.0.0.1:")[1].split("/")[0])
        with connect(port) as visitor, connect(port) as foreign:
            visitor.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert visitor.recv(4096).startswith(b"HTTP/1.1 200 OK")
            foreign.sendall(b"GET /events HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert receive_all(foreign).startswith(b"HTTP/1.1 403 ")
            server.stop()
