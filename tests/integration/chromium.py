"""A browser for tests: headless Chromium over the pipe of its DevTools protocol. No network, no package."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
_FLAGS = (
    '--headless=new',
    '--remote-debugging-pipe',
    '--no-sandbox',  # its sandbox needs rights that root in a container does not have
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-extensions',
    '--disable-background-networking',
    '--host-resolver-rules=MAP * ~NOTFOUND',
)
_KEYS = {
    'Enter': ('Enter', 13, '\r'),
    'Tab': ('Tab', 9, ''),
    'Escape': ('Escape', 27, ''),
    'ArrowRight': ('ArrowRight', 39, ''),
    'ArrowLeft': ('ArrowLeft', 37, ''),
    'ArrowDown': ('ArrowDown', 40, ''),
    'z': ('KeyZ', 90, ''),
}
CONTROL = 2

# The browser reads commands from its file 3 and answers on 4.
_LAUNCH = """
import os, sys
reader, writer = (os.dup(os.dup(os.dup(int(number)))) for number in sys.argv[1:3])  # above 4
os.dup2(reader, 3)
os.dup2(writer, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

_CENTRE = """async (selector) => {
  const element = document.querySelector(selector);
  element.scrollIntoView({block: 'center', behavior: 'instant'});
  for (let before = null; ; ) {
    const { x, y, width, height } = element.getBoundingClientRect();
    if (before && before[0] === x && before[1] === y) return [x + width / 2, y + height / 2];
    before = [x, y];
    await new Promise(requestAnimationFrame);
  }
}"""


def find_chromium() -> str | None:
    """Path of the browser, if there is one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A running browser."""

    def __init__(self, profile: Path) -> None:
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        launch = [sys.executable, '-c', _LAUNCH, str(read_commands), str(write_answers), find_chromium()]
        command = [*launch, *_FLAGS, f'--user-data-dir={profile}', 'about:blank']
        self._process = subprocess.Popen(
            command, pass_fds=(read_commands, write_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer = b''
        self._numbers = itertools.count(1)
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        """Send a command and wait for its answer; events that come before it are kept."""
        number = next(self._numbers)
        message = {'id': number, 'method': method, 'params': params}
        if session:
            message['sessionId'] = session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._read()
            if answer.get('id') == number:
                assert 'error' not in answer, f'{method}: {answer["error"]["message"]}'
                return answer['result']
            self.events.append(answer)

    def _read(self, timeout: float = 30.0) -> dict:
        deadline = time.monotonic() + timeout
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._answers, 1 << 20) if ready else b''
            assert chunk, 'Chromium does not answer'
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def close(self) -> None:
        """End the browser."""
        os.close(self._commands)  # the browser ends with its pipe
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)


class Page:
    """A tab, with its own storage and folder of downloads."""

    def __init__(self, browser: Chromium, downloads: Path, context: str | None = None) -> None:
        self._browser = browser
        self.downloads = downloads
        self.context = context or browser.call('Target.createBrowserContext')['browserContextId']
        target = browser.call('Target.createTarget', url='about:blank', browserContextId=self.context)['targetId']
        self._session = browser.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        browser.call(
            'Browser.setDownloadBehavior',
            behavior='allow',
            browserContextId=self.context,
            downloadPath=str(downloads),
        )
        for domain in ('Page', 'Runtime', 'Log', 'Network', 'DOM'):
            self.call(f'{domain}.enable')
        self.resize(1280, 900)

    def call(self, method: str, **params: object) -> dict:
        """Send a command to the tab."""
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Set the size of the window in CSS pixels."""
        scale = 2 if is_phone else 1
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )
        self.call('Emulation.setTouchEmulationEnabled', enabled=is_phone)

    def use_media(self, **features: str) -> None:
        """Prefer something, such as ``prefers_color_scheme='dark'``."""
        listed = [{'name': name.replace('_', '-'), 'value': value} for name, value in features.items()]
        self.call('Emulation.setEmulatedMedia', features=listed)

    def open(self, path: Path) -> None:
        """Open a file and wait until the report says that it is ready."""
        self.call('Page.navigate', url=path.as_uri())
        self.wait_for('document.documentElement?.dataset.ready !== undefined')

    def evaluate(self, expression: str) -> object:
        """Value of a JavaScript expression; a promise is awaited."""
        answer = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def wait_for(self, expression: str, timeout: float = 20.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout
        while not self.evaluate(f'Boolean({expression})'):
            assert time.monotonic() < deadline, f'never true: {expression}'
            time.sleep(0.02)

    def problems(self) -> list[str]:
        """Errors of the console, exceptions and violations of the policy since the tab exists."""
        self.evaluate('0')  # whatever the page has reported comes before this answer
        found = []
        for event in self._browser.events:
            if event.get('sessionId') != self._session:
                continue
            params = event['params']
            if event['method'] == 'Runtime.exceptionThrown':
                found.append(params['exceptionDetails'].get('exception', {}).get('description', 'exception'))
            elif event['method'] == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert'):
                found.append(str(params['args']))
            elif event['method'] == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
                found.append(params['entry']['text'])
        return found

    def requests(self) -> set[str]:
        """Schemes of everything that the tab has loaded."""
        sent = [e for e in self._browser.events if e.get('sessionId') == self._session]
        urls = [e['params']['request']['url'] for e in sent if e['method'] == 'Network.requestWillBeSent']
        return {url.partition(':')[0] for url in urls}

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element, once it is in the window and stands still."""
        x, y = self.evaluate(f'({_CENTRE})({json.dumps(selector)})')
        self.mouse('mousePressed', x, y)
        self.mouse('mouseReleased', x, y)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send a mouse event at a place in the window."""
        pressed = {} if kind == 'mouseMoved' else {'button': 'left', 'clickCount': 1}
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **pressed)

    def tap(self, x: float, y: float) -> None:
        """Tap with a finger at a place in the window."""
        self.call('Input.dispatchTouchEvent', type='touchStart', touchPoints=[{'x': x, 'y': y}])
        self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key."""
        code, number, text = _KEYS[key]
        event = {'key': key, 'code': code, 'windowsVirtualKeyCode': number, 'modifiers': modifiers}
        self.call('Input.dispatchKeyEvent', type='keyDown' if text else 'rawKeyDown', text=text, **event)
        self.call('Input.dispatchKeyEvent', type='keyUp', **event)

    def type(self, text: str) -> None:
        """Write into the element that has the focus, over what is selected."""
        self.call('Input.insertText', text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

    def downloaded(self, name: str, timeout: float = 20.0) -> bytes:
        """Wait for a download, take it away and return it."""
        path, deadline = self.downloads / name, time.monotonic() + timeout
        while not path.exists():
            assert time.monotonic() < deadline, f'{name} was not downloaded'
            time.sleep(0.02)
        content = path.read_bytes()
        path.unlink()
        return content

    def screenshot(self, path: Path) -> None:
        """Write a PNG of what is seen."""
        path.write_bytes(base64.b64decode(self.call('Page.captureScreenshot')['data']))
