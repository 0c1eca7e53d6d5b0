// The floor: what the kernel alone takes for sending one broadcaster's audio to many listeners. Each frame is one send()
// for each listener and nothing else is done: no WebSocket, no queue, no bound. It talks HTTP/1.0 as Icecast does, a
// source with SOURCE and listeners with GET: floor PORT FRAME_BYTES
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SOCKETS 32768
#define MAX_FRAME_BYTES 65536

enum kind { FREE, ASKING, LISTENER, SOURCE };

static enum kind kinds[MAX_SOCKETS];
static int listeners[MAX_SOCKETS];
static int listener_count, poller, source_has;
static size_t frame_bytes;
static char frame[MAX_FRAME_BYTES];

static void forget(int socket) {
    for (int i = 0; i < listener_count; i++)
        if (listeners[i] == socket) listeners[i] = listeners[--listener_count];
    kinds[socket] = FREE;
    close(socket);
}

static void take_in(int server) {
    int socket = accept4(server, NULL, NULL, SOCK_NONBLOCK), on = 1;
    if (socket < 0) return;
    if (socket >= MAX_SOCKETS) {
        close(socket);
        return;
    }
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event);
    kinds[socket] = ASKING;
}

// A request comes in one piece on this machine.
static void answer(int socket) {
    static const char ok[] = "HTTP/1.0 200 OK\r\n\r\n";
    char request[4096];
    ssize_t length = recv(socket, request, sizeof request, 0);
    if (length <= 0 || send(socket, ok, sizeof ok - 1, MSG_NOSIGNAL) < 0) {
        forget(socket);
    } else if (memcmp(request, "SOURCE", 6) == 0) {
        kinds[socket] = SOURCE;
        source_has = 0;
    } else {
        kinds[socket] = LISTENER;
        listeners[listener_count++] = socket;
    }
}

static void send_on(int source) {
    ssize_t length = recv(source, frame + source_has, frame_bytes - source_has, 0);
    if (length <= 0) {
        forget(source);
        return;
    }
    source_has += length;
    if ((size_t)source_has < frame_bytes) return;
    source_has = 0;
    for (int i = listener_count - 1; i >= 0; i--)
        if (send(listeners[i], frame, frame_bytes, MSG_NOSIGNAL) != (ssize_t)frame_bytes) forget(listeners[i]);
}

int main(int count, char **words) {
    if (count != 3 || (frame_bytes = strtoul(words[2], NULL, 10)) == 0 || frame_bytes > MAX_FRAME_BYTES) {
        fprintf(stderr, "floor PORT FRAME_BYTES\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 4096) < 0) {
        perror("floor");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, events[64];
    epoll_ctl(poller, EPOLL_CTL_ADD, server, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int socket = events[i].data.fd;
            if (socket == server) take_in(server);
            else if (kinds[socket] == ASKING) answer(socket);
            else if (kinds[socket] == SOURCE) send_on(socket);
            else if (kinds[socket] == LISTENER) forget(socket);
        }
    }
}
