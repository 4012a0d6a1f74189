"""The services for `twistd`: strings only, nothing is imported before a service is chosen."""

from twisted.application.service import ServiceMaker

uppercase_tcp = ServiceMaker(
    "Uppercase over TCP",
    "uppercase.taps.tcp",
    "Serve a transform, such as upper-casing, over TCP.",
    "uppercase-tcp",
)

uppercase_udp = ServiceMaker(
    "Uppercase over UDP",
    "uppercase.taps.udp",
    "Serve a transform, such as upper-casing, over UDP.",
    "uppercase-udp",
)

uppercase_together = ServiceMaker(
    "Uppercase over TCP and UDP",
    "uppercase.taps.together",
    "Serve transforms over TCP and UDP in one process, as a file says.",
    "uppercase",
)
