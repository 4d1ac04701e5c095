import { closeSync } from 'node:fs';
import { check, declare, SyscallError } from './libc.ts';

// include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_ROUTE = 0;
const NLMSG_ERROR = 2;
const HEADER = 16;
const REQUEST_ACK = 1 | 4;
const CREATE_REPLACE = 0x400 | 0x100;
const RTM_NEWLINK = 16;
const RTM_NEWADDR = 20;
const RTM_NEWROUTE = 24;
const RTM_NEWNEIGH = 28;
const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
/** No duplicate address detection: the address is the host's choice, and would not be usable for a second or two. */
const IFA_F_NODAD = 2;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTN_UNICAST = 1;
const RTNH_F_ONLINK = 4;
const SCOPES: Readonly<Record<string, number>> = { global: 0, universe: 0, site: 200, link: 253, host: 254 };
const NDA_DST = 1;
const NDA_LLADDR = 2;
const NUD_PERMANENT = 0x80;

const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
const cSend = declare<[number, Buffer, number, number]>(
  'send',
  ['int', 'const void *', 'size_t', 'int'],
  'long',
);
const cRecv = declare<[number, Buffer, number, number]>('recv', ['int', 'void *', 'size_t', 'int'], 'long');

/** An address of either family, or with its prefix length a network. */
export interface IpNetwork {
  /** 4 or 16 bytes. */
  bytes: Buffer;
  prefix: number;
}

export interface RouteRequest {
  /** Undefined: the default route of `family`. */
  destination: IpNetwork | undefined;
  family: 4 | 6;
  gateway: Buffer | undefined;
  interfaceIndex: number;
  /** `link`, `host` or `global`; undefined: `link` without a gateway. */
  scope: string | undefined;
  metric: number | undefined;
}

/** Changes this network namespace's interfaces, addresses and routes (rtnetlink(7)); each call is carried out at once. */
export class RouteNetlink {
  readonly #fd: number;
  #sequence = 0;

  /** @throws SyscallError */
  constructor() {
    this.#fd = check('socket', cSocket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_ROUTE));
  }

  /** Renames, which only an interface that is down can be, sets the MTU and brings up. @throws SyscallError */
  setLink(index: number, { name, mtu, up }: { name?: string; mtu?: number | undefined; up: boolean }): void {
    const info = Buffer.alloc(16);
    info.writeInt32LE(index, 4);
    info.writeUInt32LE(up ? IFF_UP : 0, 8);
    info.writeUInt32LE(IFF_UP, 12);
    const attributes = [
      ...(name === undefined ? [] : [attribute(IFLA_IFNAME, Buffer.from(`${name}\0`))]),
      ...(mtu === undefined ? [] : [attribute(IFLA_MTU, u32(mtu))]),
    ];
    this.#send(RTM_NEWLINK, 0, [info, ...attributes]);
  }

  /** @throws SyscallError */
  addAddress(index: number, { bytes, prefix }: IpNetwork): void {
    const message = Buffer.alloc(8);
    message.writeUInt8(familyOf(bytes), 0);
    message.writeUInt8(prefix, 1);
    message.writeUInt32LE(index, 4);
    this.#send(RTM_NEWADDR, CREATE_REPLACE, [
      message,
      attribute(IFA_LOCAL, bytes),
      attribute(IFA_ADDRESS, bytes),
      attribute(IFA_FLAGS, u32(IFA_F_NODAD)),
    ]);
  }

  /** @throws SyscallError ENETUNREACH for a gateway that no other route leads to */
  addRoute({ destination, family, gateway, interfaceIndex, scope, metric }: RouteRequest): void {
    const message = Buffer.alloc(12);
    const scopeNumber = scope === undefined ? (gateway === undefined ? SCOPES.link : 0) : SCOPES[scope];
    if (scopeNumber === undefined) throw new RangeError(`route scope "${scope}": not known`);
    message.writeUInt8(family === 4 ? AF_INET : AF_INET6, 0);
    message.writeUInt8(destination?.prefix ?? 0, 1);
    message.writeUInt8(RT_TABLE_MAIN, 4);
    message.writeUInt8(RTPROT_BOOT, 5);
    message.writeUInt8(scopeNumber, 6);
    message.writeUInt8(RTN_UNICAST, 7);
    // Networks of one address have gateways that are not in them.
    if (gateway !== undefined) message.writeUInt32LE(RTNH_F_ONLINK, 8);
    this.#send(RTM_NEWROUTE, CREATE_REPLACE, [
      message,
      ...(destination === undefined ? [] : [attribute(RTA_DST, destination.bytes)]),
      ...(gateway === undefined ? [] : [attribute(RTA_GATEWAY, gateway)]),
      attribute(RTA_OIF, u32(interfaceIndex)),
      ...(metric === undefined ? [] : [attribute(RTA_PRIORITY, u32(metric))]),
    ]);
  }

  /** A permanent entry of the neighbour table. @throws SyscallError */
  addNeighbour(index: number, address: Buffer, mac: Buffer): void {
    const message = Buffer.alloc(12);
    message.writeUInt8(familyOf(address), 0);
    message.writeInt32LE(index, 4);
    message.writeUInt16LE(NUD_PERMANENT, 8);
    this.#send(RTM_NEWNEIGH, CREATE_REPLACE, [
      message,
      attribute(NDA_DST, address),
      attribute(NDA_LLADDR, mac),
    ]);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #send(type: number, flags: number, parts: readonly Buffer[]): void {
    const body = Buffer.concat(parts);
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(HEADER + body.length, 0);
    header.writeUInt16LE(type, 4);
    header.writeUInt16LE(REQUEST_ACK | flags, 6);
    header.writeUInt32LE(++this.#sequence, 8);
    const message = Buffer.concat([header, body]);
    check('send', cSend(this.#fd, message, message.length, 0));
    const answer = Buffer.alloc(8192);
    // The kernel has answered before send(2) returns.
    check('recv', cRecv(this.#fd, answer, answer.length, 0));
    const error = answer.readUInt16LE(4) === NLMSG_ERROR ? answer.readInt32LE(HEADER) : 0;
    if (error !== 0) throw new SyscallError(`rtnetlink message ${type}`, -error);
  }
}

function attribute(type: number, value: Buffer): Buffer {
  const length = 4 + value.length;
  const bytes = Buffer.alloc((length + 3) & ~3);
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, 4);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function familyOf(address: Buffer): number {
  return address.length === 4 ? AF_INET : AF_INET6;
}
