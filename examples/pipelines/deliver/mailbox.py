"""A mail server that keeps all it gets in the folder `mails`: `python -m deliver.mailbox`. For a look, not for mail."""

import socketserver
import sys
from pathlib import Path
from uuid import uuid4


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.say("220 mailbox")
        while line := self.rfile.readline():
            command = line[:4].strip().upper()
            if command == b"DATA":
                self.say("354 go on")
                mail = b""
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    mail += line
                Path("mails").mkdir(exist_ok=True)
                Path("mails", f"{uuid4()}.eml").write_bytes(mail)
            self.say("221 bye" if command == b"QUIT" else "250 ok")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class Mailbox(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    with Mailbox(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 1025), Session) as server:
        print(f"mails are taken at port {server.server_address[1]}", flush=True)
        server.serve_forever()
