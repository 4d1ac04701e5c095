import { describe, expect, it } from 'vitest';
import { HpackDecoder } from '../../../../cri/grpc/hpack/decoder.ts';
import { EMPTY_TABLE, encodeHeaders } from '../../../../cri/grpc/hpack/encoder.ts';
import { STATIC_TABLE } from '../../../../cri/grpc/hpack/static-table.ts';
import { ErrorCode } from '../../../../cri/grpc/http2/errors.ts';

const MAX = 64 * 1024;
const bytes = (hex: string) => Buffer.from(hex.replace(/\s/g, ''), 'hex');
/** A literal that is added to the table, its name and value shorter than 127 bytes. */
const indexed = (name: string, value: string) =>
  Buffer.concat([
    Buffer.from([0x40, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]);
const code = (code: number) => expect.objectContaining({ name: 'ConnectionError', code });

describe('HpackDecoder', () => {
  it('reads requests that refer to each other (RFC 7541, C.3 and C.4)', () => {
    const common = [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'www.example.com'],
    ];
    const third = [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':path', '/index.html'],
      [':authority', 'www.example.com'],
      ['custom-key', 'custom-value'],
    ];
    const plain = new HpackDecoder(MAX);
    expect(plain.decode(bytes('828684410f7777772e6578616d706c652e636f6d'))).toEqual(common);
    expect(plain.decode(bytes('828684be58086e6f2d6361636865'))).toEqual([
      ...common,
      ['cache-control', 'no-cache'],
    ]);
    expect(plain.decode(bytes('828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565'))).toEqual(third);
    const coded = new HpackDecoder(MAX);
    expect(coded.decode(bytes('828684418cf1e3c2e5f23a6ba0ab90f4ff'))).toEqual(common);
    expect(coded.decode(bytes('828684be5886a8eb10649cbf'))).toEqual([
      ...common,
      ['cache-control', 'no-cache'],
    ]);
    expect(coded.decode(bytes('828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf'))).toEqual(third);
  });

  it('forgets the oldest entries of a small table (RFC 7541, C.6)', () => {
    const decoder = new HpackDecoder(MAX);
    const first = [
      [':status', '302'],
      ['cache-control', 'private'],
      ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
      ['location', 'https://www.example.com'],
    ];
    // The table of these examples has 256 bytes.
    expect(
      decoder.decode(
        bytes(
          '3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
        ),
      ),
    ).toEqual(first);
    expect(decoder.decode(bytes('4883640effc1c0bf'))).toEqual([[':status', '307'], ...first.slice(1)]);
    expect(
      decoder.decode(
        bytes(
          '88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007',
        ),
      ),
    ).toEqual([
      [':status', '200'],
      ['cache-control', 'private'],
      ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
      ['location', 'https://www.example.com'],
      ['content-encoding', 'gzip'],
      ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
    ]);
    // Entry 64 was cache-control before; with the cookie there is room for three.
    expect(decoder.decode(bytes('bebfc0'))).toHaveLength(3);
    expect(() => decoder.decode(bytes('c1'))).toThrow(code(ErrorCode.COMPRESSION_ERROR));
  });

  it('reads literals that are not to be indexed, and forgets them', () => {
    const decoder = new HpackDecoder(MAX);
    expect(decoder.decode(bytes('00 0161 0162'))).toEqual([['a', 'b']]);
    expect(decoder.decode(bytes('10 0161 0162'))).toEqual([['a', 'b']]);
    expect(() => decoder.decode(bytes('be'))).toThrow(code(ErrorCode.COMPRESSION_ERROR));
  });

  it('empties its table for an entry that is larger than it', () => {
    const decoder = new HpackDecoder(MAX);
    decoder.decode(Buffer.concat([bytes('3f21'), indexed('a', 'b')]));
    expect(decoder.decode(bytes('be'))).toEqual([['a', 'b']]);
    decoder.decode(indexed('large', 'x'.repeat(60)));
    expect(() => decoder.decode(bytes('be'))).toThrow(code(ErrorCode.COMPRESSION_ERROR));
  });

  it.each<[string, string, number]>([
    ['index 0', '80', ErrorCode.COMPRESSION_ERROR],
    ['an index beyond the tables', 'bf', ErrorCode.COMPRESSION_ERROR],
    ['a name that is not there', '7f01', ErrorCode.COMPRESSION_ERROR],
    ['half a text', '000561', ErrorCode.COMPRESSION_ERROR],
    ['half an integer', 'ff', ErrorCode.COMPRESSION_ERROR],
    ['an integer without end', 'ffffffffffffff', ErrorCode.COMPRESSION_ERROR],
    ['a larger table than it has', '3fe23f', ErrorCode.COMPRESSION_ERROR],
    ['a change of the table after a field', '8220', ErrorCode.COMPRESSION_ERROR],
    ['Huffman’s end of string', '000161 84 ffffffff', ErrorCode.COMPRESSION_ERROR],
    ['padding of a byte', '000161 82 1fff', ErrorCode.COMPRESSION_ERROR],
    ['padding of zeros', '000161 81 00', ErrorCode.COMPRESSION_ERROR],
  ])('refuses %s', (_what, hex, expected) => {
    expect(() => new HpackDecoder(MAX).decode(bytes(hex))).toThrow(code(expected));
  });

  it('refuses a small block that stands for many headers', () => {
    const decoder = new HpackDecoder(1000);
    const block = Buffer.concat([indexed('a', 'x'.repeat(100)), Buffer.alloc(50, 0xbe)]);
    expect(() => decoder.decode(block)).toThrow(code(ErrorCode.ENHANCE_YOUR_CALM));
  });
});

describe('encodeHeaders', () => {
  it('makes blocks that any decoder reads, at any time', () => {
    const fields = [
      [':status', '200'],
      ['content-type', 'application/grpc'],
      ['grpc-message', 'x'.repeat(8000)],
      ['date', ''],
    ] as const;
    const decoder = new HpackDecoder(MAX);
    expect(decoder.decode(encodeHeaders(fields))).toEqual(fields);
    expect(decoder.decode(Buffer.concat([EMPTY_TABLE, encodeHeaders(fields)]))).toEqual(fields);
    expect(encodeHeaders([[':status', '200']])).toEqual(bytes('88'));
  });

  it('counts the static table as RFC 7541 does', () => {
    expect(STATIC_TABLE).toHaveLength(61);
    expect(STATIC_TABLE[30]).toEqual(['content-type', '']);
    expect(STATIC_TABLE[60]).toEqual(['www-authenticate', '']);
  });
});
