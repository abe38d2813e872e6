"""What users of redis-py do: transactions with WATCH, blocking pops, subscriptions, scripts.

Usage: redis_py.py PORT COUNT. Each does its work COUNT times at least, and goes on until the
standard input ends. Fails with a traceback if anything is not as it must be.
"""
import sys
import threading

import redis

PORT, COUNT = int(sys.argv[1]), int(sys.argv[2])
failures, succeeded = [], []
over = threading.Event()


def wait_for_the_end():
    sys.stdin.read()
    over.set()


def rounds():
    number = 0
    while number < COUNT or not over.is_set():
        yield number
        number += 1


def connect():
    return redis.Redis(host='127.0.0.1', port=PORT, decode_responses=True, client_name='py')


def checked(work):
    def run():
        try:
            work()
        except BaseException as why:  # whatever it is, the test must hear of it
            failures.append(f'{work.__name__}: {why!r}')
    return threading.Thread(target=run)


def transactions():
    client = connect()
    for number in rounds():
        def double_step(pipe):
            value = int(pipe.get('py:sum') or 0)
            pipe.multi()
            pipe.set('py:sum', value + 1)
            pipe.incr('py:steps')
        client.transaction(double_step, 'py:sum')
    succeeded.append(number + 1)


def producer():
    client = connect()
    for number in rounds():
        client.rpush('py:queue', number)
        client.publish('py:news', number)
    client.rpush('py:queue', 'end')
    client.publish('py:news', 'end')


def worker():
    client = connect()
    client_id = client.client_id()
    expected = 0
    while (popped := client.blpop('py:queue', timeout=0)) != ('py:queue', 'end'):
        assert popped == ('py:queue', str(expected)), (popped, expected)
        expected += 1
    assert client.client_id() == client_id
    assert client.client_getname() == 'py'


def streams():
    client, last = connect(), '$'
    writer = connect()
    for number in rounds():
        if number % 4:
            continue
        if last == '$':
            last = writer.xadd('py:stream', {'n': 'first'})
        writer.xadd('py:stream', {'n': number})
        [[_, [(last, entry)]]] = client.xread({'py:stream': last}, block=0)
        assert entry == {'n': str(number)}, (entry, number)


def scripts():
    client = connect()
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for number in rounds():
        assert script(keys=['py:script'], args=[2]) == 2 * (number + 1)


subscriber = connect().pubsub(ignore_subscribe_messages=True)
subscriber.subscribe('py:news')
subscriber.psubscribe('py:n*')


def listener():
    heard, ended = {'message': 0, 'pmessage': 0}, set()
    for message in subscriber.listen():
        kind = message['type']
        if message['data'] == 'end':
            ended.add(kind)
            if len(ended) == len(heard):
                return
            continue
        assert message['data'] == str(heard[kind]), (message, heard)
        heard[kind] += 1


# Both confirmations are in before anything is published.
while subscriber.patterns == {} or subscriber.get_message(timeout=0.01) is not None:
    pass
works = [transactions, transactions, transactions, producer, worker, streams, scripts, listener]
threading.Thread(target=wait_for_the_end, daemon=True).start()
threads = [checked(work) for work in works]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
client = connect()
assert not failures, failures
there = client.mget('py:sum', 'py:steps')
assert there == [str(sum(succeeded))] * 2, (there, succeeded)
